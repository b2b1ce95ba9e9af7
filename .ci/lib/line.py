"""A slow line to one client: a TCP forwarder in this process.

The server behind it (a proxy, or the relay) sees a client with a limited rate. The client receives all bytes in order,
but late. tests/abuse/line.py is the counterpart for packets: it can lose some, but carries few."""

import asyncio
import socket
import struct

# Bytes. The line's receive buffer is small, so that most bytes wait at the target. With 32 KiB, the next segment of the
# target's kernel on the loopback device does not always fit into the window. Linux then waits as for a zero window, and
# TCP_USER_TIMEOUT ends a live connection. The narrow line is a case of its own for that.
RECEIVE_BUFFER = 64 << 10
NARROW_RECEIVE_BUFFER = 16 << 10
# Seconds between two pieces. Their size follows from the rate.
TICK = 0.02
# Pieces in one direction: more than are in flight during a delay of some seconds.
MOST_UNDER_WAY = 512


class Line:
    """Listens at `port` for one connection, and forwards it to `target`.

    The rate towards the client is `rate` bytes per second, and the delay is `delay` seconds each way. The end of a
    stream is passed on behind everything before it. A reset is passed on at once, and bytes in flight are lost.

    The target's window is closed until the line has forwarded all that it read, and then wide open. With `narrow`, it
    opens by one piece at a time, which is smaller than the target's segments on the loopback device."""

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
        # Before connecting, because the handshake offers the window.
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
            # There is at least one piece: an empty one is the end of the stream.
            size = self.piece if rate else max(1, len(data))
            for start in range(0, max(1, len(data)), size):
                # A reset is passed on at once. recv alone would first return all bytes before it.
                if error := source.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    raise OSError(error, "reset")
                piece = data[start : start + size]
                if rate:
                    # At most one tick is caught up, so that late timers do not add up.
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
