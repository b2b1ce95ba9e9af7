#!/usr/bin/env python3
"""A stream over a long line, through arc-relay and through a raw TCP relay: `benches/long_line.py RELAY`.

Two network namespaces are two hosts, with tests/abuse/line.py between them: a round trip of 100 ms, and packets of 6,000 bytes. The relay
runs on one host, with one client beside it and one on the other host. A client sends messages of 16 KiB for 12 s, with cubic and
with BBR as congestion control. It prints the megabytes of the first 4 s, and the megabytes per second after that. It needs root.
"""

import ctypes
import os
import socket
import struct
import subprocess
import sys
import threading
import time

LINE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../tests/abuse/line.py")
NEAR, FAR = ("longn", "10.79.0.1"), ("longf", "10.79.0.2")
FIRST, ALL = 4, 12  # seconds
MESSAGE = b"\x82\xfe" + struct.pack(">H", 16384) + bytes(4) + bytes(16384)
REQUEST = (
    b"GET /?pair=x HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
RAW_RELAY = """
import socket, sys, threading
listener = socket.create_server(("0.0.0.0", int(sys.argv[1])))
pair = [listener.accept()[0] for _ in range(2)]
def move(source, sink):
    buffer = bytearray(256 << 10)
    while count := source.recv_into(buffer):
        sink.sendall(memoryview(buffer)[:count])
for ends in (pair, pair[::-1]):
    threading.Thread(target=move, args=ends).start()
"""
libc = ctypes.CDLL("libc.so.6", use_errno=True)


def connect(host, port, control):
    """Connects from a host to the near one. The thread that does so stays in its namespace."""
    connected = []

    def in_namespace():
        with open(f"/run/netns/{host}") as namespace:
            if libc.setns(namespace.fileno(), 0x40000000):
                raise OSError(ctypes.get_errno(), "setns")
        connection = socket.create_connection((NEAR[1], port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, control.encode())
        connected.append(connection)

    thread = threading.Thread(target=in_namespace)
    thread.start()
    thread.join()
    return connected[0]


def upgrade(connection):
    connection.sendall(REQUEST)
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += connection.recv(1)
    assert b" 101 " in head, head


def send(connection):
    try:
        while True:
            connection.sendall(16 * MESSAGE)
    except OSError:
        pass  # the relay was stopped


def receive_raw(connection, received):
    buffer = bytearray(256 << 10)
    while count := connection.recv_into(buffer):
        received[0] += count


def receive_frames(connection, received):
    """Counts payload, and answers pings."""
    stream = connection.makefile("rb", 256 << 10)
    while len(head := stream.read(2)) == 2:
        length = head[1]
        if length == 126:
            (length,) = struct.unpack(">H", stream.read(2))
        elif length == 127:
            (length,) = struct.unpack(">Q", stream.read(8))
        payload = stream.read(length)
        if head[0] == 0x89:
            connection.sendall(bytes([0x8A, 0x80 | length]) + bytes(4) + payload)
        else:
            received[0] += length


def measure(relay, sender, receiver, control, port):
    command = [relay, "start", "--port", str(port), "--log-level", "error"] if relay else ["python3", "-c", RAW_RELAY, str(port)]
    process = subprocess.Popen(["ip", "netns", "exec", NEAR[0], *command], stdout=subprocess.DEVNULL)
    try:
        time.sleep(1)
        connections = []
        for host in (sender, receiver):
            connections.append(connect(host, port, control))
            if relay:
                upgrade(connections[-1])
            time.sleep(0.3)
        received = [0]
        threads = [
            threading.Thread(target=send, args=connections[:1], daemon=True),
            threading.Thread(target=receive_frames if relay else receive_raw, args=(connections[1], received), daemon=True),
        ]
        for thread in threads:
            thread.start()
        time.sleep(FIRST)
        first = received[0]
        time.sleep(ALL - FIRST)
        return first / 1e6, (received[0] - first) / 1e6 / (ALL - FIRST)
    finally:
        process.terminate()
        process.wait()


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True)


line = subprocess.Popen(["python3", LINE, NEAR[0], FAR[0], "1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
try:
    assert line.stdout.readline() == "ready\n", "line.py fails (root, TUN)"
    for name, address in (NEAR, FAR):
        ip("netns", "add", name)
        ip("link", "set", "dev", name, "netns", name)
        ip("-n", name, "address", "add", f"{address}/24", "dev", name)
        ip("-n", name, "link", "set", "dev", name, "mtu", "6000", "up")
        ip("-n", name, "link", "set", "dev", "lo", "up")
    line.stdin.write("delay 0.05\n")
    line.stdin.flush()
    line.stdout.readline()
    port = 9000
    for far, sender, receiver in (("sender", FAR[0], NEAR[0]), ("reader", NEAR[0], FAR[0])):
        for control in ("cubic", "bbr"):
            for name, relay in (("raw", None), ("arc-relay", sys.argv[1])):
                port += 1
                first, rate = measure(relay, sender, receiver, control, port)
                print(f"far {far}, {control}, {name}: {first:.0f} MB in {FIRST} s, then {rate:.1f} MB/s", flush=True)
finally:
    line.kill()
    for name, _ in (NEAR, FAR):
        subprocess.run(["ip", "netns", "delete", name], stderr=subprocess.DEVNULL, check=False)
