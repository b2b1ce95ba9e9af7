# For the checks beside this directory, to be sourced: one line for each check, a sum at the end, nothing left behind.

set -euo pipefail

# Nothing here may hang a pipeline. `timeout` signals the whole process group, and the trap below still cleans up. A
# script that needs more than ten minutes sets $bound, in seconds, first.
if [ -z "${CHECKS_BOUNDED:-}" ]; then
    CHECKS_BOUNDED=1 exec timeout -k 20 "${bound:-600}" "$0" "$@"
fi
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

passed=0
failed=0
finished=
pids=()
work=$(mktemp -d)
# The script's own output, also from within a check.
exec 3>&1

cleanup() {
    local status=$?
    trap - EXIT
    [ ${#pids[@]} = 0 ] || kill "${pids[@]}" 2>/dev/null || true
    wait
    clean_up_more
    rm -rf "$work"
    [ -n "$finished" ] || echo "FAIL stopped before the end" >&3
    exit "$status"
}
# For a script that has more to undo.
clean_up_more() { :; }
trap cleanup EXIT

ok() {
    echo "ok   $1"
    passed=$((passed + 1))
}

fail() {
    echo "FAIL $1"
    failed=$((failed + 1))
}

# check NAME COMMAND...: passes if the command does. Its output is shown if it does not.
check() {
    if "${@:2}" >"$work/check" 2>&1; then
        ok "$1"
    else
        fail "$1"
        sed 's/^/     /' "$work/check"
    fi
}

# tally NAME COMMAND...: counts the command's own `ok` and `FAIL` lines, and shows each as it comes, behind the name if
# there is one.
tally() {
    local name=${1:+$1: } line
    shift
    while IFS= read -r line; do
        case $line in
            "ok   "*) ok "$name${line#ok   }" ;;
            "FAIL "*) fail "$name${line#FAIL }" ;;
            *) echo "     $line" ;;
        esac
    done < <("$@" 2>&1 || echo "FAIL exit code $?")
}

summary() {
    finished=yes
    echo "$passed passed, $failed failed"
    [ "$failed" = 0 ] && [ "$passed" -gt 0 ]
}

# need COMMAND PACKAGE...: installs Debian packages if the command is missing. Daemons among them are not started.
need() {
    local command=$1
    shift
    if command -v "$command" >/dev/null; then return; fi
    echo "     installing $*"
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
        chmod +x /usr/sbin/policy-rc.d
        local ours=yes
    fi
    {
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@"
    } >"$work/apt" 2>&1 || { cat "$work/apt"; false; }
    [ -z "${ours:-}" ] || rm /usr/sbin/policy-rc.d
}

# python_with PACKAGE...: sets $python to one that has these.
python_with() {
    need python3 python3 python3-venv
    python3 -m venv "$work/venv" >"$work/pip" 2>&1 || {
        # Debian's python3 comes without what a venv needs.
        rm -rf "$work/venv"
        need no-such-command python3-venv
        python3 -m venv "$work/venv"
    }
    python=$work/venv/bin/python
    "$python" -m pip install -q --disable-pip-version-check "$@" >"$work/pip" 2>&1 || { cat "$work/pip"; false; }
}

# spawn NAME COMMAND...: runs it in the background, its output in $work/NAME.log; sets $pid.
spawn() {
    "${@:2}" >"$work/$1.log" 2>&1 &
    pid=$!
    pids+=("$pid")
}

# stop PID: ends it with SIGTERM; the exit code is the process's.
stop() {
    local status=0 other left=()
    kill "$1" 2>/dev/null || true
    wait "$1" || status=$?
    for other in "${pids[@]}"; do [ "$other" = "$1" ] || left+=("$other"); done
    pids=("${left[@]}")
    return "$status"
}

# eventually COMMAND...: waits until it succeeds, for ten seconds at most.
eventually() {
    for _ in {1..100}; do
        if "$@" 2>/dev/null; then return; fi
        sleep 0.1
    done
    false
}

listens() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1")
}

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# relay_port LOG: waits for the relay to say where it listens; sets $port.
relay_port() {
    eventually grep -q 'ws://' "$1" || { cat "$1"; false; }
    port=$(sed -n 's|.*ws://[^ ]*:\([0-9]*\).*|\1|p' "$1" | head -n 1)
}
