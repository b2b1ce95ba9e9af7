"""The relays of a cluster: processes on ports that stay the same when they come back."""

import asyncio
import contextlib
import json
import random
import signal
import socket

DRAIN_DELAY = 4  # seconds; a load balancer notices after two checks, a second apart
DRAIN_TIMEOUT = 60  # seconds; the pairs of a test leave by themselves before


def free_port():
    """A free port below those that the system gives to clients: one of thousands of clients could have it when a relay returns."""
    while True:
        port = random.randint(10_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Relay:
    def __init__(self, binary, name, work, pair_ttl):
        self.binary, self.name, self.work, self.pair_ttl = binary, name, work, pair_ttl
        self.port = free_port()
        self.process = None

    async def start(self):
        command = [self.binary, "start", "--host", "127.0.0.1", "--port", str(self.port), "--log-level", "warn"]
        command += ["--pair-ttl", self.pair_ttl, "--drain-delay", f"{DRAIN_DELAY}s", "--drain-timeout", f"{DRAIN_TIMEOUT}s"]
        with open(self.work / f"{self.name}.log", "ab") as log:
            self.process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log)
        await until_listening(self.port)

    async def pairs(self):
        """The codes in use, as /health tells."""
        _, body = await get(self.port, "/health")
        return json.loads(body)["pairs"]

    def recall(self):
        self.process.send_signal(signal.SIGUSR1)

    def drain(self):
        self.process.send_signal(signal.SIGTERM)

    async def end(self, seconds):
        """Waits for the end of the process. Its exit code."""
        async with asyncio.timeout(seconds):
            return await self.process.wait()

    async def kill(self):
        if self.process and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()


async def get(port, path):
    """The status and the body of an answer."""
    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            return int(head.split(b" ")[1]), body
        finally:
            writer.close()


async def until_listening(port):
    async with asyncio.timeout(10):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            except OSError:
                await asyncio.sleep(0.05)
