"""A sender over a plain socket, for endings that no library produces on purpose."""

import asyncio
import fcntl
import socket
import struct
import termios

from websockets.client import ClientProtocol
from websockets.uri import parse_uri

# A masked, empty frame with the reserved opcode 3.
VIOLATION = bytes([0x83, 0x80, 0, 0, 0, 0])


class RawSender:
    """The library's protocol without its I/O. It answers pings until the stream has been ended."""

    @classmethod
    async def connect(cls, url):
        self = cls()
        uri = parse_uri(url)
        self.reader, self.writer = await asyncio.open_connection(uri.host, uri.port)
        self.protocol = ClientProtocol(uri, max_size=None)
        self.ended = False
        self.protocol.send_request(self.protocol.connect())
        self.flush()
        self.joined = asyncio.get_running_loop().create_future()
        self.reading = asyncio.create_task(self.read())
        await self.joined
        return self

    async def read(self):
        """Reads until the relay has sent its close frame or ended the connection."""
        data = None
        while data != b"" and not self.protocol.close_rcvd:
            try:
                data = await self.reader.read(1 << 16)
            except OSError:
                data = b""
            if data:
                self.protocol.receive_data(data)
            self.protocol.events_received()
            self.flush()
            if not self.joined.done():
                if self.protocol.handshake_exc:
                    self.joined.set_exception(self.protocol.handshake_exc)
                elif self.protocol.state.name == "OPEN":
                    self.joined.set_result(None)
                elif data == b"":
                    self.joined.set_exception(EOFError("no answer to the handshake"))
        return self.protocol.close_rcvd

    def flush(self):
        for data in self.protocol.data_to_send():
            if data and not self.ended:
                self.writer.write(data)

    async def send(self, message):
        self.protocol.send_binary(message)
        self.flush()
        await self.writer.drain()

    def end_stream(self):
        self.ended = True
        self.writer.write_eof()

    def violate(self):
        self.ended = True
        self.writer.write(VIOLATION)

    async def reset(self):
        """Resets the connection after the relay's kernel has acknowledged all bytes, so that the reset loses none."""
        transport = self.writer.transport
        sock = transport.get_extra_info("socket")
        while transport.get_write_buffer_size() or self.unacknowledged(sock):
            await asyncio.sleep(0.01)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.abort()

    @staticmethod
    def unacknowledged(sock):
        return struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))[0]

    def abort(self):
        self.ended = True
        self.writer.transport.abort()
