"""Checks a relay with two WebSocket clients: pair.py [--ca FILE] URL CODE, one line for each check."""

import argparse
import asyncio
import os
import socket
import ssl
import struct
import sys
import urllib.error
import urllib.request

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

TIMEOUT = 30  # seconds for each check, which takes a fraction of a second
BIG = 10 << 20

arguments = argparse.ArgumentParser()
arguments.add_argument("--ca", help="the certificate that signs the server's")
arguments.add_argument("--gone", action="store_true", help="only check that a stopped relay is an error")
arguments.add_argument("url")
arguments.add_argument("code")
arguments = arguments.parse_args()

tls = ssl.create_default_context(cafile=arguments.ca) if arguments.ca else None


def client(code):
    # No pings, no size limit, and no proxy other than the tested one.
    return connect(f"{arguments.url}/?pair={code}", ssl=tls, max_size=None, ping_interval=None, proxy=None)


async def pair(code):
    return await client(code), await client(code)


async def refusal(code):
    try:
        async with client(code):
            raise AssertionError("admitted")
    except InvalidStatus as refused:
        return refused.response.status_code, refused.response.body


async def closed(side):
    """The code and reason of the close frame, which must be the next frame."""
    try:
        raise AssertionError(f"got a message of {len(await side.recv())} bytes")
    except ConnectionClosed as end:
        assert end.rcvd, "no close frame"
        return end.rcvd.code, end.rcvd.reason


def expect(found, wanted):
    assert found == wanted, f"{found!r} instead of {wanted!r}"


async def both_ways():
    a = await client(arguments.code)
    early = bytes(range(256))
    await a.send(early)  # held until the peer joins
    b = await client(arguments.code)
    expect(await b.recv(), early)
    await b.send(b"\0back")
    expect(await a.recv(), b"\0back")
    return a, b


async def big(a, b):
    one, other = os.urandom(BIG), os.urandom(BIG)
    sent = asyncio.gather(a.send(one), b.send(other))
    received = await asyncio.gather(b.recv(), a.recv())
    await sent
    assert received == [one, other], "not what was sent"


async def ping(a):
    await (await a.ping(b"there?"))


async def third():
    status, body = await refusal(arguments.code)
    expect((status, body.strip()), (409, b"pair is full"))


async def leave(a, b):
    # All messages before the close frame are delivered before it.
    last = os.urandom(BIG)
    received = asyncio.ensure_future(b.recv())
    await a.send(last)
    await a.close(1000)
    assert await received == last, "not what was sent"
    expect(await closed(b), (1000, "peer disconnected"))


async def vanish():
    a, b = await pair(arguments.code)
    # A reset, without a FIN.
    a.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    a.transport.abort()
    code, reason = await closed(b)
    # Without a proxy, the relay sees the reset. A proxy may turn it into an end of the stream.
    assert (code, reason) in [(1000, "peer disconnected"), (1011, "peer connection lost")], f"{code} {reason!r}"
    return f" ({code} {reason})"


async def no_code():
    status, _ = await refusal("")
    expect(status, 400)


async def health():
    url = arguments.url.replace("ws", "http", 1) + "/health"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=tls))
    body = await asyncio.to_thread(lambda: opener.open(url, timeout=TIMEOUT).read())
    assert b'"ok":true' in body, body


async def gone():
    status, _ = await refusal(arguments.code)
    assert status in (502, 503), status


failures = 0


async def check(name, steps):
    global failures
    try:
        found = await asyncio.wait_for(steps, TIMEOUT)
        print("ok  ", name + (found if isinstance(found, str) else ""))
        return found
    except Exception as error:
        failures += 1
        print(f"FAIL {name}: {type(error).__name__} {error}")


async def main():
    if arguments.gone:
        return await check("a stopped relay is an error", gone())
    sides = await check("binary messages both ways", both_ways())
    if not sides:
        return
    await check("10 MiB both ways at once", big(*sides))
    await check("a ping is answered", ping(sides[0]))
    await check("a third client is refused with 409", third())
    await check("the last message, then close code 1000", leave(*sides))
    await check("a reset is reported to the peer", vanish())
    await check("a missing pair code is refused with 400", no_code())
    await check("/health", health())


asyncio.run(main())
sys.exit(failures > 0)
