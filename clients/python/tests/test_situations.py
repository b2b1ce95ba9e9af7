"""What a program sees in each situation. The column of docs/protocol.md has to be what these tests have seen."""

import asyncio
import contextlib
import pathlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_websocket

import arc_relay

from .test_relay import codes, relay, run

DOCUMENT = pathlib.Path(__file__).parents[3] / "docs/protocol.md"
COLUMN = "`clients/python`"


def table() -> dict[str, str]:
    """The column of this client, by situation."""
    lines = DOCUMENT.read_text().splitlines()
    [start] = [number for number, line in enumerate(lines) if line.startswith("| situation |")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[start : lines.index("", start)]]
    column = rows[0].index(COLUMN)
    assert len({row[0] for row in rows[2:]}) == len(rows) - 2, "a situation comes twice"
    return {row[0]: row[column] for row in rows[2:]}


@dataclass
class Stage:
    """A relay, and the program whose events are written down."""

    url: str
    process: asyncio.subprocess.Process
    stack: contextlib.AsyncExitStack
    code: str = field(default_factory=lambda: next(codes))
    seen: list[str] = field(default_factory=list)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def begin(self, side: str | None = None) -> arc_relay.Connection:
        """Opens the program's connection."""
        connection = arc_relay.connect(self.url, self.code, side=side, on_event=self._see)
        await self.stack.enter_async_context(connection)
        reader = asyncio.create_task(self._read(connection))
        self.stack.callback(reader.cancel)
        return connection

    async def wait(self, side: str | None = None) -> arc_relay.Connection:
        """Opens it, and waits until it is the first with its code."""
        connection = await self.begin(side)
        while connection.state != "waiting":
            await asyncio.sleep(0.01)
        return connection

    async def other(self, query: str = "", code: str | None = None) -> ClientConnection:
        """Another client, once it is open. It is no program of this package."""
        target = f"{self.url}/?pair={code or self.code}{query}"
        client = await open_websocket(target, compression=None, proxy=None, max_size=None, close_timeout=0.1)
        self.stack.push_async_callback(client.close)
        return client

    async def meet(self) -> tuple[arc_relay.Connection, ClientConnection]:
        """Joins the program and another client, and forgets what the program has seen until then."""
        connection = await self.wait()
        other = await self.other()
        await other.send(bytes(7))
        await self.sees("7 bytes")
        self.seen.clear()
        return connection, other

    async def sees(self, what: str) -> None:
        while not any(what in text for text in self.seen):
            await asyncio.sleep(0.01)

    def _see(self, event: arc_relay.Event) -> None:
        match event:
            case arc_relay.Draining(within):
                self._tell(f"`Draining` {within}")
            case arc_relay.Reconnecting(code, reason):
                # The words of an error are those of a system.
                self._tell(f"`Reconnecting` {code} {'and an error' if code == 1006 and reason else reason}".strip(), is_end=True)
            case _:
                self._tell(f"`{type(event).__name__}`")

    async def _read(self, connection: arc_relay.Connection) -> None:
        try:
            async for message in connection:
                self._tell(f"a message of {len(message)} bytes")
        except arc_relay.Closed as closed:
            self._tell(f"`Closed` {closed.code} {closed}", is_end=True)

    def _tell(self, text: str, is_end: bool = False) -> None:
        # The first end is told, and not what follows it.
        if not self.over.is_set():
            self.seen.append(text)
        if is_end:
            self.over.set()


Act = Callable[[Stage], Awaitable[object]]
SITUATIONS: dict[str, tuple[list[str], Act]] = {}


def situation(name: str, *flags: str) -> Callable[[Act], Act]:
    """Registers a situation, with the flags that the relay needs for it."""

    def register(act: Act) -> Act:
        assert name not in SITUATIONS
        SITUATIONS[name] = ([*flags], act)
        return act

    return register


@situation("it waits for its peer")
async def _(on: Stage) -> None:
    await on.wait()
    await asyncio.sleep(0.3)  # it sees no more than it saw at once


@situation("its peer comes")
async def _(on: Stage) -> None:
    await on.wait()
    on.seen.clear()
    await (await on.other()).send(bytes(3))
    await on.sees("3 bytes")


@situation("its peer sends 10 MiB in one message")
async def _(on: Stage) -> None:
    _, other = await on.meet()
    await other.send(bytes(10 << 20))
    await on.sees("bytes")


@situation("its peer is slow, and it sends 32 MiB")
async def _(on: Stage) -> None:
    connection, _ = await on.meet()  # the other client reads some frames ahead, and no more

    async def send() -> None:
        for _ in range(32):
            await connection.send(bytes(1 << 20))

    sending = asyncio.create_task(send())
    done, _ = await asyncio.wait({sending}, timeout=1.5)
    on.seen.append("`send` does not wait" if done else "`send` waits")
    sending.cancel()


@situation("it sends text by mistake")
async def _(on: Stage) -> None:
    connection, other = await on.meet()
    await connection.send("hello")
    on.seen.append("the peer gets it as a binary message" if await other.recv() == b"hello" else "the peer gets something else")


@situation("its peer leaves")
async def _(on: Stage) -> None:
    _, other = await on.meet()
    await other.close(4321, "a reason")
    await on.over.wait()


@situation("its peer is lost")
async def _(on: Stage) -> None:
    _, other = await on.meet()
    no_linger = struct.pack("ii", 1, 0)  # the end of the socket is a reset
    other.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_linger)
    other.transport.abort()
    await on.over.wait()


@situation("no peer comes within `--pair-ttl`", "--pair-ttl", "1s")
async def _(on: Stage) -> None:
    await on.begin()
    await on.over.wait()


@situation("it comes again elsewhere, with its `side`")
async def _(on: Stage) -> None:
    await on.wait(side="phone")
    await on.other("&side=phone")
    await on.over.wait()


@situation("the code has two clients", "--probe-timeout", "0")
async def _(on: Stage) -> None:
    await on.other()
    await on.other()
    await on.begin()
    await on.over.wait()


@situation("its code is too short", "--min-code-length", "99")
async def _(on: Stage) -> None:
    await on.begin()
    await on.over.wait()


@situation("it has no token", "--access-token-file", str(pathlib.Path(__file__).parents[2] / "js/test/tokens.txt"))
async def _(on: Stage) -> None:
    await on.begin()
    await on.over.wait()


@situation("its origin is not allowed", "--allow-origin", "https://app.example")
async def _(on: Stage) -> None:
    await on.begin()
    await on.sees("")  # the first event decides
    on.seen[0] += ", as it has no origin"


@situation("it has too many connections", "--max-connections-per-client", "1")
async def _(on: Stage) -> None:
    await on.other()
    await on.begin()
    await on.over.wait()


@situation("it comes too often", "--max-joins-per-minute", "1")
async def _(on: Stage) -> None:
    await on.other()
    await on.begin()
    await on.over.wait()


@situation("the relay is full", "--max-waiting", "1")
async def _(on: Stage) -> None:
    await on.other(code="another")
    await on.begin()
    await on.over.wait()


@situation("the relay stops while it waits", "--drain-delay", "1s", "--drain-timeout", "1s")
async def _(on: Stage) -> None:
    await on.wait()
    on.process.terminate()
    await on.over.wait()


@situation("the relay is killed")
async def _(on: Stage) -> None:
    await on.meet()
    on.process.kill()
    await on.over.wait()


@situation("the relay is not there")
async def _(on: Stage) -> None:
    on.process.kill()
    await on.process.wait()
    await on.begin()
    await on.over.wait()


@contextlib.asynccontextmanager
async def stage(*flags: str) -> AsyncIterator[Stage]:
    async with relay(*flags) as (url, process), contextlib.AsyncExitStack() as stack:
        yield Stage(url, process, stack)


def test_each_situation_of_the_document_is_here() -> None:
    assert list(table()) == list(SITUATIONS)


@pytest.mark.parametrize("name", SITUATIONS)
def test_a_program_sees_what_the_document_says(name: str) -> None:
    flags, act = SITUATIONS[name]

    async def test() -> None:
        async with stage(*flags) as on:
            await act(on)
            assert ", ".join(on.seen) == table()[name]

    run(test)
