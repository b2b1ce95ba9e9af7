"""A slow line to one client, as a TCP forwarder in this process. The server behind it (a proxy, or the relay) sees a
client that takes a limited number of bytes in a second; the client gets everything, in order and late.

Its counterpart for packets is tests/abuse/line.py, which can lose some, but carries few."""

import asyncio
import socket
import struct

# Bytes. What the line itself takes off the target's hands: little, so that everything else waits with the target. With
# 32 KiB, what the target's system wants to send next on the loopback device does not always fit into the window. Linux
# waits as for a shut window then, and TCP_USER_TIMEOUT ends a connection that goes on: a case by itself.
RECEIVE_BUFFER = 64 << 10
NARROW_RECEIVE_BUFFER = 16 << 10
# Seconds between two pieces; their size follows from the rate.
TICK = 0.02
# Pieces in one direction. More than are under way within a delay of some seconds.
MOST_UNDER_WAY = 512


class Line:
    """Listens at `port` for one connection, and forwards it to `target`: at `rate` bytes per second on the way to the
    client, with `delay` seconds each way. The end of a stream is passed on behind everything before it; a reset at
    once, and everything that is still under way is lost.

    The target's window is shut until all that was read has left, and then wide open. With `narrow` it opens by a piece
    at a time, which is less than the target's system wants to send at once on the loopback device."""

    def __init__(self, target, rate, delay, narrow=False):
        self.target, self.rate, self.delay = target, rate, delay
        self.receive_buffer = NARROW_RECEIVE_BUFFER if narrow else RECEIVE_BUFFER
        self.piece = max(1, int(rate * TICK))
        self.at_once = self.piece if narrow else 2 * RECEIVE_BUFFER

    async def __aenter__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.port = self.listener.getsockname()[1]
        self.task = asyncio.create_task(self.carry())
        return self

    async def __aexit__(self, *_):
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        self.listener.close()

    async def carry(self):
        loop = asyncio.get_running_loop()
        client, _ = await loop.sock_accept(self.listener)
        server = socket.socket()
        # Before it connects: later, the window has been offered.
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_buffer)
        sides = (client, server)
        try:
            for side in sides:
                side.setblocking(False)
                side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(server, ("127.0.0.1", self.target))
            async with asyncio.TaskGroup() as group:
                for source, sink, rate in ((server, client, self.rate), (client, server, None)):
                    under_way = asyncio.Queue(MOST_UNDER_WAY)
                    group.create_task(self.take(source, under_way, rate))
                    group.create_task(self.deliver(under_way, sink))
        except* OSError:
            for side in sides:
                side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        finally:
            for side in sides:
                side.close()

    async def take(self, source, under_way, rate):
        loop = asyncio.get_running_loop()
        free_at = loop.time()
        data = None
        while data != b"":
            data = await loop.sock_recv(source, self.at_once)
            # There is at least one piece: the end of the stream is an empty one.
            size = self.piece if rate else max(1, len(data))
            for start in range(0, max(1, len(data)), size):
                # A reset is passed on at once; recv alone would first hand out everything that came before it.
                if error := source.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    raise OSError(error, "reset")
                piece = data[start : start + size]
                if rate:
                    # One tick may be made up for, so that late timers do not add up.
                    free_at = max(free_at, loop.time() - TICK) + len(piece) / rate
                    await asyncio.sleep(free_at - loop.time())
                await under_way.put((loop.time() + self.delay, piece))

    async def deliver(self, under_way, sink):
        loop = asyncio.get_running_loop()
        while True:
            due, data = await under_way.get()
            await asyncio.sleep(due - loop.time())
            if not data:
                sink.shutdown(socket.SHUT_WR)
                return
            await loop.sock_sendall(sink, data)
