"""A program that asks for an attempt gets one at once, and not too often. Every wait has a bound."""

import asyncio
import contextlib
import json

import pytest
from websockets.asyncio.server import ServerConnection, serve

import arc_relay
from arc_relay.closing import Attempts
from arc_relay.connection import SUBPROTOCOL

from .test_relay import Events, codes, next_message, pauses_in, relay, run


@pytest.fixture
def long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first pause has 0.5 s at most. With this chance it has 30 s."""
    monkeypatch.setattr("random.random", lambda: 60.0)


async def soon(what: Events) -> None:
    await asyncio.wait_for(what.when(lambda event: event == arc_relay.Waiting()), 15)


@pytest.mark.usefixtures("long_pauses")
def test_it_ends_the_pause() -> None:
    async def test() -> None:
        events = Events()
        async with relay() as (url, _):
            pass
        async with arc_relay.connect(url, next(codes), on_event=events.append) as peer:
            await events.when(lambda event: isinstance(event, arc_relay.Reconnecting))
            async with relay(port=int(url.rsplit(":", 1)[1])):
                peer.reconnect("the network is back")
                await soon(events)
                assert pauses_in(events) == [30.0, 0.0]
        assert events[1] == arc_relay.Reconnecting(4002, "the network is back", 0.0)

    run(test)


def test_a_program_that_asks_all_the_time_comes_no_more_often() -> None:
    attempts = Attempts()
    tried, next_at = [], 0.0
    for tick in range(1200):
        now = tick / 20
        if attempts.hurry(now) or now >= next_at:
            tried.append(now)
            pause = attempts.lose(1006, None, now, 1.0)
            assert pause is not None
            next_at = now + pause
    # Each time at once, then after 0.5, 1, 2 and 4 s.
    assert len(tried) == 6 * 5


@pytest.mark.usefixtures("long_pauses")
def test_an_attempt_without_an_answer_is_given_up_once() -> None:
    async def test() -> None:
        events, accepted = Events(), 0
        is_accepted = asyncio.Event()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal accepted
            accepted += 1
            is_accepted.set()
            with contextlib.suppress(OSError):
                while await reader.read(1 << 16):
                    pass
            writer.close()

        server = await asyncio.start_server(accept, "127.0.0.1")
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with arc_relay.connect(url, next(codes), on_event=events.append) as peer:
            await is_accepted.wait()
            is_accepted.clear()
            peer.reconnect()
            await is_accepted.wait()
            for _ in range(20):
                peer.reconnect()
                await asyncio.sleep(0.01)
            assert accepted == 2
        assert pauses_in(events) == [0.0]
        server.close()

    run(test)


def test_an_open_websocket_is_given_up_for_another() -> None:
    async def test() -> None:
        code, events, others = next(codes), Events(), Events()
        async with relay() as (url, _):
            async with (
                arc_relay.connect(url, code, on_event=others.append) as other,
                arc_relay.connect(url, code, on_event=events.append) as peer,
            ):
                await asyncio.gather(events.paired(), others.paired())
                starts = len(events), len(others)
                peer.reconnect("another network")
                await asyncio.gather(events.paired(starts[0]), others.paired(starts[1]))
                [lost] = [event for event in events if isinstance(event, arc_relay.Reconnecting)]
                assert (lost.code, lost.reason) == (4002, "another network")
                await peer.send(b"on")
                assert await next_message(other) == b"on"

    run(test)


@pytest.mark.usefixtures("long_pauses")
def test_a_program_can_ask_when_it_is_told_that_the_peer_has_gone() -> None:
    async def test() -> None:
        code, events = next(codes), Events()

        def hear(event: arc_relay.Event) -> None:
            events.append(event)
            if isinstance(event, arc_relay.Unpaired):
                peer.reconnect()

        async with relay() as (url, _):
            peer = arc_relay.connect(url, code, on_event=hear)
            async with peer:
                await soon(events)
                async with arc_relay.connect(url, code):
                    await events.paired()
                start = len(events)
                await asyncio.wait_for(events.when(lambda event: event == arc_relay.Waiting(), start), 15)
                assert pauses_in(events) == [0.0]

    run(test)


def test_a_program_that_asks_then_does_not_undo_the_end() -> None:
    async def test() -> None:
        events, came = Events(), 0

        def hear(event: arc_relay.Event) -> None:
            events.append(event)
            if isinstance(event, arc_relay.Unpaired):
                peer.reconnect()

        async def end(socket: ServerConnection) -> None:
            nonlocal came
            came += 1
            await socket.send('{"type":"paired"}')
            await socket.close(4001, "replaced")

        async with serve(end, "127.0.0.1", 0, subprotocols=[SUBPROTOCOL]) as server:
            peer = arc_relay.connect(f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}", next(codes), on_event=hear)
            async with peer:
                with pytest.raises(arc_relay.Closed, match="replaced"):
                    await next_message(peer)
        assert came == 1

    run(test)


def test_a_pause_that_the_relay_asks_for_stays() -> None:
    async def test() -> None:
        events, came = Events(), 0

        async def refuse(socket: ServerConnection) -> None:
            nonlocal came
            came += 1
            await socket.send(json.dumps({"type": "retry", "after": 12}))
            await socket.close(4429, "too many requests")

        async with serve(refuse, "127.0.0.1", 0, subprotocols=[SUBPROTOCOL]) as server:
            url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
            async with arc_relay.connect(url, next(codes), on_event=events.append) as peer:
                await events.when(lambda event: isinstance(event, arc_relay.Reconnecting))
                for _ in range(20):
                    peer.reconnect()
                    await asyncio.sleep(0.01)
            assert came == 1
            assert len(pauses_in(events)) == 1

    run(test)


@pytest.mark.usefixtures("long_pauses")
def test_a_closed_connection_stays_closed() -> None:
    async def test() -> None:
        events = Events()
        async with relay() as (url, _):
            async with arc_relay.connect(url, next(codes), on_event=events.append) as peer:
                await soon(events)
            peer.reconnect()
            await asyncio.sleep(0)
            assert peer.state == "closed"
            assert pauses_in(events) == []

    run(test)
