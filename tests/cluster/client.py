"""Clients of a cluster: sides that join, meet, and come again by the rules of docs/protocol.md, and pairs of them."""

import asyncio
import collections
import contextlib
import logging
import random
import time

from websockets.client import ClientProtocol
from websockets.frames import Opcode
from websockets.http11 import Response
from websockets.uri import WebSocketURI

# The library formats a line for each frame otherwise.
SILENT = logging.getLogger("silent")
SILENT.setLevel(logging.CRITICAL + 1)

HANDSHAKE_SECONDS = 10
# How long a side waits before it comes again, in seconds. The seconds of docs/protocol.md are halved, to save time.
PAUSES = {"service restart": (0.5, 1.0), "relay stopping": (0.5, 1.5), 409: (0.5, 0.6), 503: (0.5, 1.5)}
AT_ONCE = (0.0, 0.1)
LONGEST_PAUSE = 2.0

# The answers that all clients got, by status; 0 is none.
answers = collections.Counter()
# The greetings that came to a side of another pair.
misled = []


class Connection(asyncio.Protocol):
    """One WebSocket, without any rule for what comes after it."""

    def __init__(self, port, query, on_message):
        uri = WebSocketURI(False, "127.0.0.1", port, "/", query)
        self.ws = ClientProtocol(uri, max_size=None, logger=SILENT)
        self.on_message = on_message
        loop = asyncio.get_running_loop()
        self.answered = loop.create_future()  # the status of the answer, or 0 without one
        self.ended = loop.create_future()
        self.transport = None

    def connection_made(self, transport):
        self.transport = transport
        self.ws.send_request(self.ws.connect())
        self.flush()

    def data_received(self, data):
        self.ws.receive_data(data)
        for event in self.ws.events_received():
            if isinstance(event, Response):
                if not self.answered.done():
                    self.answered.set_result(event.status_code)
            elif event.opcode is Opcode.BINARY:
                self.on_message(bytes(event.data))
        self.flush()

    def eof_received(self):
        self.ws.receive_eof()
        self.flush()

    def connection_lost(self, _):
        if not self.answered.done():
            self.answered.set_result(0)
        if not self.ended.done():
            self.ended.set_result(self.ws.close_rcvd.reason if self.ws.close_rcvd else "no close frame")

    def send(self, message):
        self.ws.send_binary(message)
        self.flush()

    def leave(self):
        with contextlib.suppress(Exception):  # the relay may have closed it
            self.ws.send_close(1000)
            self.flush()

    def flush(self):
        for data in self.ws.data_to_send():
            if data:
                self.transport.write(data)
            else:
                self.transport.close()


class Side:
    """A client that joins with its code until it is told to leave. It has met when it has its peer's greeting."""

    def __init__(self, port, query, greeting):
        self.port = port  # a function: the load balancer's port may change
        self.query, self.greeting = query, greeting
        self.connection = None
        self.joined = asyncio.Event()
        self.met = asyncio.Event()
        self.echoed = asyncio.Event()
        self.cuts = []  # the close reasons of connections that ended although the pair had met
        self.task = None

    def start(self, delay=0.0):
        self.task = asyncio.create_task(self.run(delay))

    async def run(self, delay):
        await asyncio.sleep(delay)
        failures = 0
        while True:
            status, reason = await self.visit()
            has_failed = status != 101
            failures = failures + 1 if has_failed else 0
            pause = PAUSES.get(status if has_failed else reason)
            if pause is None and has_failed:
                pause = (0.1 * failures, 0.2 * failures)
            low, high = pause or AT_ONCE
            await asyncio.sleep(min(random.uniform(low, high), LONGEST_PAUSE))

    async def visit(self):
        """One connection, to its end: the status of the answer, and the close reason."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                _, connection = await loop.create_connection(
                    lambda: Connection(self.port(), self.query, self.on_message), "127.0.0.1", self.port()
                )
        except OSError:
            answers[0] += 1
            return 0, None
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                status = await connection.answered
            answers[status] += 1
            if status != 101:
                return status, None
            self.connection = connection
            self.joined.set()
            connection.send(self.greeting)
            reason = await connection.ended
            if self.met.is_set():
                self.cuts.append(reason)
            return status, reason
        except TimeoutError:
            return 0, None
        finally:
            self.connection = None
            for event in (self.joined, self.met, self.echoed):
                event.clear()
            connection.transport.abort()

    def on_message(self, message):
        match message:
            case self.greeting:
                self.met.set()
            case b"ping":
                self.connection.send(b"pong")
            case b"pong":
                self.echoed.set()
            case _:
                misled.append(message)

    async def leave(self):
        if self.connection:
            ended = self.connection.ended
            self.connection.leave()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await asyncio.shield(ended)
        if self.task:
            self.task.cancel()


class Pair:
    """Two sides with one code, which each of them may spell in its own way and send to its own load balancer."""

    def __init__(self, code, ports, queries):
        self.sides = [Side(port, query, code.encode()) for port, query in zip(ports, queries, strict=True)]

    @property
    def has_met(self):
        return all(side.met.is_set() for side in self.sides)

    @property
    def was_cut(self):
        return any(side.cuts for side in self.sides)

    def start(self, seconds, nth=None):
        for side in self.sides if nth is None else [self.sides[nth]]:
            side.start(random.uniform(0, seconds))

    def ping(self):
        for side in self.sides:
            side.echoed.clear()
            if side.connection:
                side.connection.send(b"ping")

    @property
    def is_alive(self):
        return all(side.echoed.is_set() for side in self.sides)

    async def leave(self):
        await asyncio.gather(*(side.leave() for side in self.sides))


async def await_all(things, is_done, seconds):
    """Waits until all are done, or until the time is over. How many are."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not all(map(is_done, things)):
        await asyncio.sleep(0.05)
    return sum(map(is_done, things))
