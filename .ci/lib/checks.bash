# To be sourced by the checks in the parent directory. Prints one line for each check and a summary, and cleans up.

set -euo pipefail

# A time limit, so that no check can hang a pipeline. `timeout` signals the whole process group, and the trap below
# still cleans up. A script that needs more than ten minutes sets $bound, in seconds, before.
if [ -z "${CHECKS_BOUNDED:-}" ]; then
    CHECKS_BOUNDED=1 exec timeout -k 20 "${bound:-600}" "$0" "$@"
fi
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

passed=0
failed=0
finished=
pids=()
work=$(mktemp -d)
# The script's own stdout, also from within a check.
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
# A script with more to undo overrides this.
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

# check NAME COMMAND...: passes if the command succeeds. Shows its output otherwise.
check() {
    if "${@:2}" >"$work/check" 2>&1; then
        ok "$1"
    else
        fail "$1"
        sed 's/^/     /' "$work/check"
    fi
}

# tally NAME COMMAND...: counts the command's own `ok` and `FAIL` lines. Shows each line as it comes, after the name if
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

# need COMMAND PACKAGE...: installs Debian packages if the command is missing. Does not start their daemons.
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

# python_with PACKAGE...: sets $python to an interpreter with these packages.
python_with() {
    need python3 python3 python3-venv
    python3 -m venv "$work/venv" >"$work/pip" 2>&1 || {
        # Debian's python3 alone cannot make a venv.
        rm -rf "$work/venv"
        need no-such-command python3-venv
        python3 -m venv "$work/venv"
    }
    python=$work/venv/bin/python
    "$python" -m pip install -q --disable-pip-version-check "$@" >"$work/pip" 2>&1 || { cat "$work/pip"; false; }
}

# spawn NAME COMMAND...: runs the command in the background with its output in $work/NAME.log. Sets $pid.
spawn() {
    "${@:2}" >"$work/$1.log" 2>&1 &
    pid=$!
    pids+=("$pid")
}

# stop PID: ends the process with SIGTERM, and returns its exit code.
stop() {
    local status=0 other left=()
    kill "$1" 2>/dev/null || true
    wait "$1" || status=$?
    for other in "${pids[@]}"; do [ "$other" = "$1" ] || left+=("$other"); done
    pids=("${left[@]}")
    return "$status"
}

# eventually COMMAND...: waits until the command succeeds, for ten seconds at most.
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

# relay_port LOG: waits for the relay's address in its log. Sets $port.
relay_port() {
    eventually grep -q 'ws://' "$1" || { cat "$1"; false; }
    port=$(sed -n 's|.*ws://[^ ]*:\([0-9]*\).*|\1|p' "$1" | head -n 1)
}
