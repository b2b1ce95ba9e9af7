"""A slow reader, and a sender that streams as fast as it can, both on Python's `websockets` with its defaults.

    slow.py HOST:PORT BYTES_PER_SECOND SECONDS MOST_UNDER_WAY

`websockets` pings after 20 s, and gives up after 20 s more. The sender sends until SECONDS have passed, and the reader
reads on until the end. Prints a line for each check, and the figures. $CONGESTION_CONTROL names the algorithm of both
sockets.
"""

import asyncio
import os
import socket
import struct
import sys
import time

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

MESSAGE = 16 * 1024
HEAD = struct.Struct(">Id")  # the number of the message, and the time at which it was sent
QUEUED = 4  # frames in the reader's own queue: most of its bytes are where the relay is responsible for them

address, rate, seconds, most = sys.argv[1], *map(int, sys.argv[2:])
url = f"ws://{address}/?pair=python-{rate}"


class Progress:
    sent = read = under_way = 0
    delays = []  # of the messages, from the sender's program to the reader's
    pings = {"sender": 0.0, "reader": 0.0}


async def send(client, progress):
    end, number = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        await client.send(HEAD.pack(number, time.monotonic()) + bytes(MESSAGE - HEAD.size))
        number += 1
        progress.sent += MESSAGE
    await client.send(b"the last")


async def read(client, progress):
    due = time.monotonic()
    number = 0
    while (message := await client.recv()) != b"the last":
        nth, sent_at = HEAD.unpack_from(message)
        assert nth == number and len(message) == MESSAGE, f"message {nth} comes instead of {number}"
        progress.delays.append(time.monotonic() - sent_at)
        number += 1
        progress.read += len(message)
        due = max(due + len(message) / rate, time.monotonic() - 1)
        await asyncio.sleep(due - time.monotonic())


async def watch(progress, begin):
    last = begin
    while True:
        await asyncio.sleep(0.25)
        progress.under_way = max(progress.under_way, progress.sent - progress.read)
        if time.monotonic() - last >= 10:
            last = time.monotonic()
            print(f"     {last - begin:4.0f} s: {progress.sent:9} sent, {progress.read:9} read", flush=True)


async def ping(name, client, progress):
    """Pings at the library's pace, and notes the longest wait for an answer."""
    while True:
        await asyncio.sleep(5)
        begin = time.monotonic()
        await (await client.ping())
        progress.pings[name] = max(progress.pings[name], time.monotonic() - begin)


def tcp():
    host, port = address.rsplit(":", 1)
    client = socket.create_connection((host, int(port)))
    if control := os.environ.get("CONGESTION_CONTROL"):
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, control.encode())
    return client


async def main():
    progress, begin = Progress(), time.monotonic()
    async with connect(url, sock=tcp()) as sender, connect(url, sock=tcp(), max_queue=QUEUED) as reader:
        watches = [asyncio.create_task(watch(progress, begin))]
        watches += [
            asyncio.create_task(ping(name, client, progress)) for name, client in (("sender", sender), ("reader", reader))
        ]
        try:
            await asyncio.gather(send(sender, progress), read(reader, progress))
            failure = ""
        except (ConnectionClosed, AssertionError) as error:
            failure = f"after {time.monotonic() - begin:.0f} s: {error!r}"
        for task in watches:
            task.cancel()
    name = f"slow.py: at {rate} bytes in a second"
    figures = f"{progress.under_way} bytes under way at most, {progress.sent - progress.read} at the end"
    pings = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in progress.pings.items())
    delays = sorted(progress.delays[len(progress.delays) // 10 :] or [0.0])  # without the beginning
    pings += f"; a message takes {delays[len(delays) // 2]:.1f} s, p99 {delays[len(delays) * 99 // 100]:.1f} s"
    print(f"     {progress.sent} bytes sent, {progress.read} read, {figures}; longest answer to a ping: {pings}")
    print(f"ok   {name}: everything arrives" if not failure else f"FAIL {name}: {failure}")
    good = progress.under_way <= most
    print(f"{'ok  ' if good else 'FAIL'} {name}: {progress.under_way} bytes under way, {most} at most")
    sys.exit(bool(failure) or not good)


asyncio.run(main())
