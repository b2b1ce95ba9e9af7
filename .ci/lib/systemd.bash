#!/usr/bin/env bash
# Follows the first lines of the systemd units as an administrator would, with a real systemd. One line for each check.
#
# systemd need not be this machine's first process: its manager of a user starts, watches and restarts units as that
# does, and gets directories of its own here. Instead of the machine's, `systemctl` is to reach that manager.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
[ "${1:-}" = inside ] || exec unshare --mount "$0" inside

run=/run/user/0 units=/etc/systemd/system
for directory in /run /usr/local/bin "$units"; do mount -t tmpfs tmpfs "$directory"; done
mkdir -p /run/systemd/system "$run/systemd" /run/config/systemd
chmod 700 "$run"
ln -s "$units" /run/config/systemd/user
export XDG_RUNTIME_DIR=$run XDG_CONFIG_HOME=/run/config
systemctl() { timeout 30 "$(type -P systemctl)" --user "$@"; }

/lib/systemd/systemd --user --unit=basic.target >/run/manager.log 2>&1 &
manager=$!
trap 'kill "$manager"; wait "$manager" || true' EXIT
for _ in {1..100}; do [ ! -S "$run/systemd/notify" ] || break; sleep 0.1; done
# As /run/systemd is: the service is another user.
chmod 755 "$run" "$run/systemd"
chmod 777 "$run/systemd/notify"

# These ask for file systems that only the first process of a machine may mount.
mkdir "$units/arc-relay.service.d"
cat >"$units/arc-relay.service.d/test.conf" <<'.'
[Service]
ProtectHome=no
ProtectKernelLogs=no
ProtectKernelTunables=no
StandardOutput=null
StandardError=append:/run/relay.log
.

failed=0
check() {
    if "${@:2}" >/run/check 2>&1; then
        echo "ok   $1"
    else
        echo "FAIL $1"
        sed 's/^/     /' /run/check
        failed=1
    fi
}
# follow UNIT: runs the commands in the first lines of a unit.
follow() {
    local command
    while read -r command; do
        echo "$command"
        eval "$command"
    done < <(sed -n '/^\[Unit\]/q; s/^# \(cp\|systemctl\) /\1 /p' "deploy/$1")
}
property() { systemctl show arc-relay --property "$1" --value; }
is() { [ "$1" = "$2" ] || { echo "'$1' instead of '$2'"; cat /run/relay.log; false; }; }
# A relay that stops is not ready, but it is alive, and answers.
answers() { curl --silent --show-error --fail --max-time 20 --output /dev/null http://127.0.0.1:8765/livez; }

check "the lines of arc-relay.service start it" follow arc-relay.service
check "it is ready as soon as systemd says so" answers
pid=$(property MainPID)
check "it is not root" test "$(stat -c %u "/proc/$pid")" != 0
check "a reload succeeds" systemctl reload arc-relay
check "the same process goes on" is "$(property MainPID)" "$pid"
kill -KILL "$pid"
for _ in {1..100}; do [ "$(property ActiveState)" != active ] || [ "$(property MainPID)" = "$pid" ] || break; sleep 0.1; done
check "systemd starts it again if it dies" answers
check "a stop ends it" systemctl stop arc-relay
check "with exit code 0" is "$(property Result) $(property ExecMainStatus)" "success 0"

check "the lines of arc-relay.socket start it" follow arc-relay.socket
touch /run/goes-on
(answered=0; while [ -e /run/goes-on ]; do answers || exit 1; answered=$((answered + 1)); done; echo "$answered" >/run/answered) &
clients=$!
for _ in 1 2 3 4 5; do
    systemctl reset-failed arc-relay # systemd starts a unit five times in ten seconds, and then takes it for broken
    systemctl restart arc-relay
done
rm /run/goes-on
check "five restarts refuse no client" wait "$clients"
check "there were clients meanwhile" test "$(cat /run/answered)" -gt 5
check "a stop of both ends it" systemctl stop arc-relay.socket arc-relay.service
exit "$failed"
