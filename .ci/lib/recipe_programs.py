"""What .ci/lib/recipes.py runs: a relay and programs, with a bound for each wait."""

import asyncio
import contextlib
import os
import re
import signal
import urllib.parse

PATIENCE = 60  # seconds for each step of a conversation, most of which take less than one
BUILD_PATIENCE = 900  # seconds for installations and compilers


class Failure(Exception):
    """What is wrong with a recipe."""


class Relay:
    """A relay on a free port."""

    def __init__(self, binary):
        self.binary = binary

    async def __aenter__(self):
        flags = ["--host", "127.0.0.1", "--port", "0", "--log-level", "off"]
        pipe = asyncio.subprocess.PIPE
        self.process = await asyncio.create_subprocess_exec(self.binary, "start", *flags, stdout=pipe)
        line = (await asyncio.wait_for(self.process.stdout.readline(), PATIENCE)).decode()
        self.address = re.search(r"ws://(\S+)", line)[1]
        return self

    async def __aexit__(self, *_):
        self.process.terminate()
        await asyncio.wait_for(self.process.wait(), PATIENCE)

    def url(self, code, side):
        return f"ws://{self.address}/?{urllib.parse.urlencode({'pair': code, 'side': side})}"


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
