"""What .ci/lib/recipes.py runs: a relay and programs, with a bound for each wait."""

import asyncio
import contextlib
import json
import os
import re
import signal
import time
import urllib.parse

from websockets.asyncio.server import serve

PATIENCE = 60  # seconds for each step of a conversation, most of which take less than one
BUILD_PATIENCE = 900  # seconds for installations and compilers


class Failure(Exception):
    """What is wrong with a recipe."""


def url(address, code, side):
    return f"ws://{address}/?{urllib.parse.urlencode({'pair': code, 'side': side})}"


class FullRelay:
    """Stands for a relay that refuses the first client, and breaks down at the second: it answers nothing."""

    AFTER = 1  # seconds that the first client is told to wait

    def __init__(self):
        self.refused = None  # when the first client was refused, in seconds
        self.paused = None  # until the next one came, in seconds
        self.has_failed = asyncio.Event()

    async def __aenter__(self):
        v1 = ["arc-relay.v1"]
        self.server = await serve(self.refuse, "127.0.0.1", 0, subprotocols=v1, process_request=self.admit, compression=None)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        await self.close()

    async def close(self):
        self.server.close()
        await self.server.wait_closed()

    def url(self, code, side):
        return url(f"127.0.0.1:{self.port}", code, side)

    def admit(self, connection, _):
        if self.refused is None:
            return
        self.paused = self.paused or time.monotonic() - self.refused
        connection.transport.abort()
        self.has_failed.set()

    async def refuse(self, socket):
        self.refused = time.monotonic()
        await socket.send(json.dumps({"type": "retry", "after": self.AFTER}))
        await socket.close(4503, "relay is full")


class Relay:
    """A relay on this port, or on a free one."""

    def __init__(self, binary, port=0):
        self.binary, self.port = binary, port

    async def __aenter__(self):
        flags = ["--host", "127.0.0.1", "--port", str(self.port), "--log-level", "off"]
        pipe = asyncio.subprocess.PIPE
        self.process = await asyncio.create_subprocess_exec(self.binary, "start", *flags, stdout=pipe)
        line = (await asyncio.wait_for(self.process.stdout.readline(), PATIENCE)).decode()
        self.address = re.search(r"ws://(\S+)", line)[1]
        return self

    async def __aexit__(self, *_):
        self.process.terminate()
        await asyncio.wait_for(self.process.wait(), PATIENCE)

    def url(self, code, side):
        return url(self.address, code, side)


class Program:
    """A running recipe, with everything that it has written so far. The end of the block stops it."""

    def __init__(self, command, folder, address, data):
        self.command, self.folder, self.data = command, folder, data
        self.environment = {**os.environ, "RELAY": address}
        self.written, self.errors = bytearray(), bytearray()
        self.news = asyncio.Event()

    async def __aenter__(self):
        pipe = asyncio.subprocess.PIPE
        self.process = await asyncio.create_subprocess_exec(
            "bash", "-euo", "pipefail", "-c", self.command,
            cwd=self.folder, env=self.environment, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True,
        )  # fmt: skip
        self.tasks = [
            asyncio.create_task(self.feed()),
            asyncio.create_task(self.collect(self.process.stdout, self.written)),
            asyncio.create_task(self.collect(self.process.stderr, self.errors)),
        ]
        return self

    async def __aexit__(self, *_):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        await self.process.wait()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def feed(self):
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):  # not every program reads it
            self.process.stdin.write(self.data)
            await self.process.stdin.drain()
        self.process.stdin.close()

    async def collect(self, stream, into):
        while part := await stream.read(1 << 20):
            into += part
            self.news.set()

    async def wrote(self, expected):
        """Waits for these bytes on standard output, and for no others."""
        while len(self.written) < len(expected):
            self.news.clear()
            await self.news.wait()
        if self.written != expected:
            raise Failure("standard output has other bytes than the peer has sent")

    async def ended(self):
        """Waits for its end, and returns the exit code and standard error."""
        code = await self.process.wait()
        await asyncio.gather(*self.tasks)
        return code, self.errors.decode()


async def within(what, awaitable, patience=PATIENCE):
    try:
        return await asyncio.wait_for(awaitable, patience)
    except TimeoutError:
        raise Failure(f"after {patience} s still waits for {what}") from None


async def run(command, folder):
    """Runs a command to its end, and returns what it prints."""
    async with Program(command, folder, "", b"") as program:
        code, errors = await within(f"the end of: {command}", program.ended(), BUILD_PATIENCE)
        if code != 0:
            raise Failure(f"{command}: exit code {code}: {errors[-2000:]}{program.written.decode()[-2000:]}")
        return program.written.decode()
