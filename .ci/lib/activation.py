"""Checks a relay as a service of systemd: activation.py BINARY, one line for each check.

This program does what systemd does: it listens, passes its sockets to each relay that it starts, and reads what the relay tells it
(sd_listen_fds(3), sd_notify(3)).
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

BINARY = sys.argv[1]
TIMEOUT = 30  # seconds for each step, which takes a fraction of a second
RESTARTS = 5
CLIENTS = 16  # pairs that are opened at the same time

# The relay's own pid is that of the shell, which execs it.
SHELL = 'export LISTEN_PID=$$; exec "$@"'


class Service:
    """A relay that is started with these sockets."""

    def __init__(self, sockets, notifications, **environment):
        def pass_sockets():
            for number, passed in enumerate(sockets):
                os.dup2(passed.fileno(), 200 + number)
            for number in range(len(sockets)):
                os.dup2(200 + number, 3 + number)

        environment |= {"NOTIFY_SOCKET": notifications, "LISTEN_FDS": str(len(sockets)), "ARC_RELAY_LOG_LEVEL": "warn"}
        self.process = subprocess.Popen(
            ["sh", "-c", SHELL, "sh", BINARY, "start"],
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            close_fds=False,
            preexec_fn=pass_sockets,
        )

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(TIMEOUT)


def listen(family, address):
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.bind(address)
    listener.listen(4096)
    return listener


async def told(notifications):
    return (await asyncio.wait_for(asyncio.get_running_loop().sock_recv(notifications, 4096), TIMEOUT)).decode().split()


async def open_pairs(url, number, is_over, counts):
    """Opens one pair after the other, as clients that come again when they are told to."""
    pair = 0
    while not is_over.is_set():
        pair += 1
        code = f"{url}/?pair={number}-{pair}"
        try:
            async with connect(code, proxy=None) as one, connect(code, proxy=None) as other:
                await one.send(b"x")
                assert await asyncio.wait_for(other.recv(), TIMEOUT) == b"x"
            counts["joined"] += 1
        except ConnectionClosed:
            counts["closed"] += 1  # 1001: the relay stops
        except InvalidStatus as error:
            assert error.response.status_code == 503 and "Retry-After" in error.response.headers, error
            counts["later"] += 1  # its connection was accepted just before
        except (OSError, InvalidHandshake) as error:
            counts["refused"] += 1
            print(f"     {error!r}")


def check(name, is_right, detail=""):
    print(f"ok   {name}" if is_right else f"FAIL {name}: {detail}", flush=True)


async def main():
    directory = tempfile.mkdtemp()
    notifications = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notifications.bind(f"{directory}/notify")
    notifications.setblocking(False)
    path = f"{directory}/notify"
    listeners = [listen(socket.AF_INET, ("127.0.0.1", 0)), listen(socket.AF_INET6, ("::1", 0))]
    port = listeners[0].getsockname()[1]

    relay = Service(listeners, path)
    ready = await told(notifications)
    check("the relay tells that it is ready", ready == ["READY=1"], ready)
    for listener in listeners:
        host, port_of = listener.getsockname()[:2]
        host = f"[{host}]" if ":" in host else host
        body = await asyncio.to_thread(lambda: urllib.request.urlopen(f"http://{host}:{port_of}/health", timeout=TIMEOUT).read())
        check(f"it accepts connections from the socket on {host}", b'"ok"' in body, body)

    counts, is_over = {"joined": 0, "closed": 0, "later": 0, "refused": 0}, asyncio.Event()
    clients = [
        asyncio.create_task(open_pairs(f"ws://127.0.0.1:{port}", number, is_over, counts)) for number in range(CLIENTS)
    ]
    codes, states = [], []
    for _ in range(RESTARTS):
        await asyncio.sleep(0.3)
        codes.append(await asyncio.to_thread(relay.stop))
        states.append(await told(notifications))
        await asyncio.sleep(0.2)
        relay = Service(listeners, path)
        await told(notifications)
    await asyncio.sleep(0.3)
    is_over.set()
    await asyncio.wait_for(asyncio.gather(*clients), TIMEOUT)
    check("it tells that it stops", states == [["STOPPING=1"]] * RESTARTS, states)
    check("it stops with exit code 0", codes == [0] * RESTARTS, codes)
    check(
        f"{RESTARTS} restarts leave no connection without an answer",
        counts["joined"] > CLIENTS * RESTARTS and not counts["refused"],
        counts,
    )
    print(f"     {counts['joined']} pairs; {counts['closed'] + counts['later']} times a client was told to come again")
    relay.stop()

    wrong = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    relay = Service([wrong], path)
    _, errors = relay.process.communicate(timeout=TIMEOUT)
    lines = errors.decode().splitlines()
    check(
        "a socket of another kind is an error of one line",
        relay.process.returncode == 1 and len(lines) == 1 and "cannot accept connections from the socket" in lines[0],
        (relay.process.returncode, lines),
    )


asyncio.run(main())
