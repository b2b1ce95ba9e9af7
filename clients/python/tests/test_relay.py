"""Connections by a real relay, and by a line that cuts. Every wait has a bound."""

import asyncio
import contextlib
import itertools
import json
import os
import pathlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

import arc_relay
from arc_relay.connection import SUBPROTOCOL
from arc_relay.e2e import end_to_end, new_secret
from arc_relay.session import Plain

BINARY = os.environ.get("ARC_RELAY_BIN", str(pathlib.Path(__file__).parents[3] / "target/release/arc-relay"))
TIMEOUT = 60.0

codes = (f"python-test-{os.getpid()}-{number}" for number in itertools.count())
KINDS: dict[str, Callable[[], dict[str, Any]]] = {
    "in the clear": lambda: {"code": next(codes)},
    "encrypted": lambda: {**end_to_end(new_secret())},
}


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), TIMEOUT))


@contextlib.asynccontextmanager
async def relay(*flags: str, port: int = 0) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    process = await asyncio.create_subprocess_exec(
        BINARY, "start", "--host", "127.0.0.1", "--port", str(port), "--log-level", "off", *flags,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode()
        found = re.search(r"ws://\S+", line)
        assert found, line
        yield found[0], process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


class Line:
    """A TCP proxy that can reset its connections."""

    def __init__(self, url: str) -> None:
        self.port = int(url.rsplit(":", 1)[1])
        self.writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> "Line":
        self.server = await asyncio.start_server(self.accept, "127.0.0.1")
        self.url = f"ws://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        self.cut()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writers |= {writer, far_writer}
        await asyncio.gather(self.carry(reader, far_writer), self.carry(far_reader, writer), return_exceptions=True)

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while content := await reader.read(1 << 16):
            writer.write(content)
            await writer.drain()
        writer.close()

    def cut(self) -> None:
        for writer in self.writers:
            writer.transport.abort()
        self.writers.clear()


class Events(list[arc_relay.Event]):
    """The events of a connection."""

    async def when(self, matches: Callable[[arc_relay.Event], bool], start: int = 0) -> arc_relay.Event:
        while True:
            for event in self[start:]:
                if matches(event):
                    return event
            await asyncio.sleep(0.01)

    async def paired(self, start: int = 0) -> None:
        await self.when(lambda event: isinstance(event, arc_relay.Paired), start)


def pauses_in(events: list[arc_relay.Event]) -> list[float]:
    return [event.pause for event in events if isinstance(event, arc_relay.Reconnecting)]


async def next_message(peer: arc_relay.Connection) -> bytes:
    async for message in peer:
        return message
    raise AssertionError("the peer has closed")


@pytest.mark.parametrize("kind", KINDS)
def test_messages_of_all_lengths_arrive_both_ways_in_order(kind: str) -> None:
    lengths = [0, 1, 125, 65_518, 65_519, 65_536, 8 << 20, 3]

    async def send(peer: arc_relay.Connection) -> None:
        for number, length in enumerate(lengths):
            await peer.send(bytes([number]) * length)

    async def receive(peer: arc_relay.Connection) -> None:
        for number, length in enumerate(lengths):
            assert await next_message(peer) == bytes([number]) * length

    async def test() -> None:
        async with relay() as (url, _):
            options = KINDS[kind]()
            async with arc_relay.connect(url, **options) as one, arc_relay.connect(url, **options) as other:
                await asyncio.gather(*(act(side) for act in (send, receive) for side in (one, other)))

    run(test)


@pytest.mark.parametrize("kind", KINDS)
def test_both_sides_come_again_after_each_cut_and_send_on(kind: str) -> None:
    async def test() -> None:
        async with relay() as (url, _), Line(url) as line:
            options, events = KINDS[kind](), [Events(), Events()]
            async with (
                arc_relay.connect(line.url, **options, on_event=events[0].append) as one,
                arc_relay.connect(line.url, **options, on_event=events[1].append) as other,
            ):
                for number in range(4):
                    await one.send(f"round {number}")
                    assert await next_message(other) == f"round {number}".encode()
                    starts = [len(side) for side in events]
                    line.cut()
                    await asyncio.gather(*(side.paired(start) for side, start in zip(events, starts)))
                assert arc_relay.Unpaired(orderly=False) in events[0]

    run(test)


def test_a_line_that_is_cut_again_and_again_is_back_at_once_if_the_two_had_met() -> None:
    async def test() -> None:
        code, events = next(codes), [Events(), Events()]
        async with relay() as (url, _), Line(url) as line, contextlib.AsyncExitStack() as stack:
            for side in events:
                await stack.enter_async_context(arc_relay.connect(line.url, code, on_event=side.append))
            starts = [0, 0]
            for number in range(6):
                await asyncio.gather(*(side.paired(start) for side, start in zip(events, starts)))
                await asyncio.sleep(1.1)  # that is how long such a line lives
                starts = [len(side) for side in events]
                line.cut()
                for side, start in zip(events, starts):
                    lost = await side.when(lambda event: isinstance(event, arc_relay.Reconnecting), start)
                    assert isinstance(lost, arc_relay.Reconnecting) and lost.pause <= 0.5, f"round {number}: {lost}"

    run(test)


def test_a_client_that_has_waited_long_comes_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arc_relay.closing._LASTING", 0.9)

    async def test() -> None:
        events = Events()
        async with relay("--pair-ttl", "1s") as (url, _), arc_relay.connect(url, next(codes), on_event=events.append):
            while len(pauses := pauses_in(events)) < 6:
                await asyncio.sleep(0.01)
            assert max(pauses) <= 0.5, pauses

    run(test)


def test_a_relay_that_joins_and_closes_at_once_is_left_alone_for_longer_and_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.random", lambda: 0.1)

    async def close(socket: ServerConnection) -> None:
        await socket.send('{"type":"paired"}')
        await socket.close(1011, "the end")

    async def test() -> None:
        events = Events()
        async with serve(close, "127.0.0.1", 0, subprotocols=[SUBPROTOCOL]) as server:
            url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
            async with arc_relay.connect(url, next(codes), on_event=events.append):
                while len(pauses := pauses_in(events)) < 5:
                    await asyncio.sleep(0.01)
                assert arc_relay.Paired() in events
                assert pauses == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8])

    run(test)


def test_a_relay_that_stops_says_so_and_its_clients_meet_at_the_next() -> None:
    async def test() -> None:
        events = [Events(), Events()]
        async with contextlib.AsyncExitStack() as stack:
            async with relay("--drain-timeout", "1s") as (url, process):
                code = next(codes)
                for side in events:
                    await stack.enter_async_context(arc_relay.connect(url, code, on_event=side.append))
                await asyncio.gather(*(side.paired() for side in events))
                process.terminate()
                for side in events:
                    await side.when(lambda event: event == arc_relay.Draining(within=1))
                await process.wait()
            starts = [len(side) for side in events]
            async with relay(port=int(url.rsplit(":", 1)[1])):
                await asyncio.gather(*(side.paired(start) for side, start in zip(events, starts)))

    run(test)


def test_refusals_that_no_retry_can_change_close_the_connection() -> None:
    async def test() -> None:
        events = Events()
        async with relay("--min-code-length", "4") as (url, _):
            async with arc_relay.connect(url, "abc", on_event=events.append) as refused:
                for attempt in (refused.send(b"late"), next_message(refused)):
                    with pytest.raises(arc_relay.Closed, match="missing or invalid pair code") as raised:
                        await attempt
                    assert raised.value.code == 4400
                assert refused.state == "closed" and not events

    run(test)


def test_an_encrypted_peer_that_takes_leave_is_told_from_one_that_is_cut_off() -> None:
    async def test() -> None:
        events, options = Events(), end_to_end(new_secret())
        async with relay() as (url, _), arc_relay.connect(url, **options, on_event=events.append) as stays:
            async with arc_relay.connect(url, **options) as leaves:
                await leaves.send(b"the last")
            assert await next_message(stays) == b"the last"
            await events.when(lambda event: event == arc_relay.Unpaired(orderly=True))

    run(test)


def test_sides_with_different_secrets_never_pair() -> None:
    async def test() -> None:
        code, events = end_to_end(new_secret())["code"], [Events(), Events()]
        async with relay() as (url, _), contextlib.AsyncExitStack() as stack:
            for side in events:
                session = end_to_end(new_secret())["session"]
                await stack.enter_async_context(arc_relay.connect(url, code, session=session, on_event=side.append))
            refused: list[Awaitable[arc_relay.Event]] = [
                side.when(lambda event: isinstance(event, arc_relay.Reconnecting)) for side in events
            ]
            await asyncio.gather(*refused)
            codes_of = [event.code for side in events for event in side if isinstance(event, arc_relay.Reconnecting)]
            assert 4002 in codes_of
            assert not any(isinstance(event, arc_relay.Unpaired) for event in events[1])

    run(test)


def test_a_program_that_takes_nothing_slows_its_peer_and_keeps_its_connection() -> None:
    async def test() -> None:
        code, events = next(codes), Events()
        async with relay() as (url, _):
            async with (
                arc_relay.connect(url, code, on_event=events.append, heartbeat=0.5, patience=3) as slow,
                arc_relay.connect(url, code) as fast,
            ):
                sent = 0

                async def stream() -> None:
                    nonlocal sent
                    while sent < 64:
                        await fast.send(bytes(1 << 20))
                        sent += 1

                task = asyncio.create_task(stream())
                # Longer than the heartbeat and the patience, and until the stream stands still.
                before = -1
                while before != sent:
                    before = sent
                    await asyncio.sleep(5)
                assert sent < 32, f"{sent} MiB went into buffers"
                for _ in range(64):
                    assert len(await next_message(slow)) == 1 << 20
                await task
                assert [event for event in events if event != arc_relay.Waiting()] == [arc_relay.Paired()]

    run(test)


def test_control_messages_that_make_no_sense_are_ignored_and_times_are_bounded() -> None:
    nonsense = ["", "<html>", "null", "[]", "7", '"waiting"', '{"type":1}', '{"type":"later"}', "{}", '{"type":["waiting"]}', "[" * 100_000]
    times = [(30, 30), (0.5, 0.5), ("30", 0), (None, 0), ([], 0), (True, 0), (-1, 0), (1e300, 3600), (10**400, 3600), (-(10**400), 0)]

    async def confuse(socket: ServerConnection) -> None:
        for text in nonsense:
            await socket.send(text)
        for within, _ in times:
            await socket.send(json.dumps({"type": "draining", "within": within}))
        await socket.send('{"type":"draining","within":NaN}')
        await socket.send('{"type":"draining"}')
        await socket.send('{"type":"retry","after":"soon"}')
        await socket.close(4429, "too many requests")

    async def test() -> None:
        events = Events()
        async with serve(confuse, "127.0.0.1", 0, subprotocols=[SUBPROTOCOL]) as server:
            url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
            async with arc_relay.connect(url, next(codes), on_event=events.append):
                await events.when(lambda event: isinstance(event, arc_relay.Reconnecting))
        told = [event.within for event in events if isinstance(event, arc_relay.Draining)]
        # What is no JSON, as NaN is, is ignored.
        assert told == [within for _, within in times] + [0]
        [pause] = pauses_in(events)
        assert pause <= 1

    run(test)


def test_a_side_that_closes_just_behind_its_peer_closes() -> None:
    class Late(Plain):
        """A session that takes leave just when the relay's close frame comes."""

        def farewell(self) -> list[bytes]:
            assert peer._socket is not None
            peer._socket.data_received(bytes.fromhex("880203e8"))
            return [b"farewell"]

    peer = arc_relay.connect("ws://127.0.0.1", "")

    async def test() -> None:
        nonlocal peer
        code, events = next(codes), Events()
        async with relay() as (url, _), arc_relay.connect(url, code):
            peer = arc_relay.connect(url, code, session=lambda is_first: Late(), on_event=events.append)
            async with peer:
                await events.paired()
            assert peer.state == "closed"

    run(test)


def test_an_error_of_on_event_is_reported_and_ends_nothing() -> None:
    async def test() -> None:
        reported: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context.get("exception")))
        error, code = ValueError("the program's own"), next(codes)

        def fail(event: arc_relay.Event) -> None:
            raise error

        async with relay() as (url, _), Line(url) as line, arc_relay.connect(url, code) as other:
            async with arc_relay.connect(line.url, code, on_event=fail) as peer:
                for content in (b"one", b"two"):
                    await peer.send(content)
                    assert await next_message(other) == content
                    line.cut()
                    while peer.state == "paired":
                        await asyncio.sleep(0.01)
        assert reported and all(each is error for each in reported)

    run(test)
