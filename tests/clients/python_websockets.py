"""Checks of the relay with clients on Python's `websockets`.

Takes the relay's address, HOST:PORT. Prints a line for each check.
"""

import asyncio
import functools
import hashlib
import os
import socket
import struct
import sys
import traceback

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

CHECK_SECONDS = 20
MIB = 1024 * 1024
LEFT = (1000, "peer disconnected")
LOST = (1011, "peer connection lost")

# The default would refuse messages of more than 1 MiB.
connect = functools.partial(connect, max_size=16 * MIB)

checks = []


def check(function):
    checks.append(function)
    return function


@check
async def binary_message_arrives_unchanged(url):
    async with connect(url) as a, connect(url) as b:
        await a.send(bytes(range(256)))
        assert await b.recv() == bytes(range(256))
        await b.send(b"\0")
        assert await a.recv() == b"\0"


@check
async def empty_message_is_forwarded(url):
    async with connect(url) as a, connect(url) as b:
        await a.send(b"")
        await a.send(b"next")
        assert await b.recv() == b""
        assert await b.recv() == b"next"


@check
async def thousand_messages_keep_their_order_in_both_directions(url):
    async def send(client):
        for number in range(1000):
            await client.send(struct.pack(">I", number) + bytes(number))

    async def receive(client):
        for number in range(1000):
            assert await client.recv() == struct.pack(">I", number) + bytes(number)

    async with connect(url) as a, connect(url) as b:
        await asyncio.gather(send(a), send(b), receive(a), receive(b))


@check
async def ten_mib_in_both_directions_at_once(url):
    from_a, from_b = os.urandom(10 * MIB), os.urandom(10 * MIB)
    async with connect(url) as a, connect(url) as b:
        _, _, at_a, at_b = await asyncio.gather(a.send(from_a), b.send(from_b), a.recv(), b.recv())
    assert sha256(at_a) == sha256(from_b)
    assert sha256(at_b) == sha256(from_a)


@check
async def text_is_dropped(url):
    async with connect(url) as a, connect(url) as b:
        await a.send("dropped")
        await a.send(["dropped, ", "too: ", "\N{SNOWMAN}"])
        await a.send("")
        await a.send(b"binary")
        assert await b.recv() == b"binary"


@check
async def text_that_is_not_utf8_is_closed_with_1007(url):
    async with connect(url) as a, connect(url) as b:
        await a.send(b"\xff", text=True)
        assert (await close_frame(a))[0] == 1007
        assert await close_frame(b) == LOST


@check
async def ping_is_answered_by_the_relay(url):
    async with connect(url) as a:
        await (await a.ping(b"alone"))
        async with connect(url) as b:
            await (await a.ping(b"x" * 125))
            await (await b.ping(b""))
            await a.send(b"undisturbed")
            assert await b.recv() == b"undisturbed"


@check
async def ping_between_fragments_is_answered(url):
    async def fragments(client):
        yield b"one "
        await (await client.ping(b"within"))
        yield b"two"

    async with connect(url) as a, connect(url) as b:
        await a.send(fragments(a))
        assert await b.recv() == b"one two"


@check
async def fragments_arrive_as_one_message(url):
    parts = [b"", b"a", b"b" * 200, b"", b"c" * 70_000, os.urandom(3 * MIB), b""]
    async with connect(url) as a, connect(url) as b:
        await a.send(parts)
        await a.send(b"next")
        assert sha256(await b.recv()) == sha256(b"".join(parts))
        assert await b.recv() == b"next"


@check
async def messages_before_pairing_are_held_for_the_peer(url):
    large = os.urandom(10 * MIB)
    async with connect(url) as a:
        await a.send(b"first")
        await (await a.ping())  # the relay has the message
        sending = asyncio.create_task(a.send(large))  # ... and cannot take all of this one
        async with connect(url) as b:
            assert await b.recv() == b"first"
            assert sha256(await b.recv()) == sha256(large)
            await sending


@check
async def full_pair_is_refused_with_409(url):
    async with connect(url) as a, connect(url) as b:
        assert await rejection(url) == (409, b"pair is full\n")
        await a.send(b"undisturbed")
        assert await b.recv() == b"undisturbed"


@check
async def missing_or_invalid_pair_code_is_refused_with_400(url):
    base = url.partition("?")[0]
    for query in ["", "?", "?pair=", "?pair", "?other=x", "?pair=" + "x" * 257, "?pair=%FF"]:
        assert await rejection(base + query) == (400, b"missing or invalid pair code\n"), query


@check
async def pair_code_is_the_same_in_every_encoding(url):
    base, _, query = url.partition("?")
    async with connect(f"{base}any/path?x=1&{query}%20%C3%A9&pair=second") as a, connect(f"{url}+%c3%a9") as b:
        await a.send(b"joined")
        assert await b.recv() == b"joined"


@check
async def close_reaches_the_peer_after_all_messages(url):
    async with connect(url) as a, connect(url) as b:
        for number in range(100):
            await a.send(bytes([number]) * 1000)
        await a.close(4001, "bye")
        assert (a.protocol.close_rcvd.code, a.protocol.close_rcvd_then_sent) == (4001, False)
        for number in range(100):
            assert await b.recv() == bytes([number]) * 1000
        assert await close_frame(b) == LEFT


@check
async def pair_code_is_free_once_one_client_has_closed(url):
    async with connect(url) as a, connect(url) as b:
        await a.close()
        async with connect(url) as c, connect(url) as d:
            await d.send(b"to c")
            assert await c.recv() == b"to c"
            assert await close_frame(b) == LEFT


@check
async def reset_closes_the_peer_with_1011(url):
    async with connect(url) as a, connect(url) as b:
        await a.send(b"before")
        assert await b.recv() == b"before"
        # With a linger of zero, closing the socket sends a reset instead of the end of the stream.
        linger = struct.pack("ii", 1, 0)
        a.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        a.transport.abort()
        assert await close_frame(b) == LOST


@check
async def end_of_stream_between_messages_closes_the_peer_with_1000(url):
    async with connect(url) as a, connect(url) as b:
        await a.send(b"before")
        a.transport.abort()  # without unread data, the kernel sends a FIN instead of a reset
        assert await b.recv() == b"before"
        assert await close_frame(b) == LEFT


@check
async def end_of_stream_within_a_message_closes_the_peer_with_1011(url):
    async def fragments(client):
        yield b"one"
        await (await client.ping())  # the relay has it
        client.transport.abort()
        yield b"two"

    async with connect(url) as a, connect(url) as b:
        try:
            await a.send(fragments(a))
        except ConnectionClosed:
            pass
        assert await close_frame(b) == LOST


@check
async def first_subprotocol_is_echoed_and_no_extension_accepted(url):
    async with connect(url, subprotocols=["first", "second"]) as a, connect(url) as b:
        assert "permessage-deflate" in a.request.headers["Sec-WebSocket-Extensions"]
        assert "Sec-WebSocket-Extensions" not in a.response.headers
        assert a.subprotocol == "first"
        assert b.subprotocol is None


async def close_frame(client):
    """Returns the code and reason of the close frame that must come next."""
    try:
        message = await client.recv()
    except ConnectionClosed as closed:
        assert closed.rcvd is not None, "the connection ended without a close frame"
        return closed.rcvd.code, closed.rcvd.reason
    raise AssertionError(f"a message of {len(message)} bytes instead of a close frame")


async def rejection(url):
    """Returns the status and body of the rejection."""
    try:
        async with connect(url):
            raise AssertionError("the relay has admitted the client")
    except InvalidStatus as refused:
        return refused.response.status_code, refused.response.body


def sha256(data):
    return hashlib.sha256(data).hexdigest()


async def main(address):
    failed = 0
    for function in checks:
        name = f"python_websockets.py: {function.__name__.replace('_', ' ')}"
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                await function(f"ws://{address}/?pair=python-{function.__name__}")
            print("ok  ", name, flush=True)
        except Exception as error:
            failed += 1
            print(f"FAIL {name}: {error!r}", flush=True)
            traceback.print_exception(error)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1])))
