"""A middlebox that does what no directive of nginx does to a WebSocket: middlebox.py hold|limit PORT UPSTREAM

`hold` passes on what a client sends behind the head of its request in pieces of 32 KiB. `limit` ends the connection
when a client has sent a megabyte."""

import asyncio
import sys

PIECE = 32 << 10
LIMIT = 1 << 20

mode, port, upstream = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])


async def up(reader, writer):
    writer.write(await reader.readuntil(b"\r\n\r\n"))
    total = 0
    while data := await (reader.readexactly(PIECE) if mode == "hold" else reader.read(PIECE)):
        total += len(data)
        if mode == "limit" and total > LIMIT:
            return
        writer.write(data)
        await writer.drain()


async def down(reader, writer):
    while data := await reader.read(PIECE):
        writer.write(data)
        await writer.drain()


async def forward(reader, writer):
    from_relay, to_relay = await asyncio.open_connection("127.0.0.1", upstream)
    directions = [asyncio.ensure_future(up(reader, to_relay)), asyncio.ensure_future(down(from_relay, writer))]
    done, pending = await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
    for direction in pending:
        direction.cancel()
    for end in (writer, to_relay):
        end.close()
    for direction in done:
        direction.exception()  # a client may leave at any time


async def main():
    server = await asyncio.start_server(forward, "127.0.0.1", port)
    await server.serve_forever()


asyncio.run(main())
