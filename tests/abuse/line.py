#!/usr/bin/env python3
"""A line between two hosts: `line.py ONE OTHER SEED` makes a network device of each name (TUN), and carries every packet
from one to the other. What becomes of them is said on standard input, a line at a time: `loss 0.1` (the share that is
lost), `delay 0.1` (seconds, each way), `rate 4000` (bytes in a second towards OTHER, 0 for any number), `cut` (nothing
comes through any more). (tc-netem does the same, but not every kernel has it.)
"""

import fcntl
import heapq
import os
import random
import select
import struct
import sys
import time

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
MOST_UNDER_WAY = 5000  # packets; as in any router, what comes on top is lost
MOST_QUEUED = 64 * 1024  # bytes that wait for a line with a rate: one with a large buffer, as mobile ones have it


def device(name):
    file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(file, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return file


one, other = device(sys.argv[1]), device(sys.argv[2])
chance = random.Random(int(sys.argv[3]))
loss, delay, rate = 0.0, 0.0, 0.0
free_at = 0.0  # when the line with a rate has sent what waits for it
under_way = []  # (when it arrives, its number, where, what it is)
number = 0
print("ready", flush=True)
while True:
    wait = max(0.0, under_way[0][0] - time.monotonic()) if under_way else None
    readable, _, _ = select.select([0, one, other], [], [], wait)
    if 0 in readable:
        words = os.read(0, 1000).decode().split()
        if not words:
            sys.exit()
        for word, value in zip(words, words[1:] + [""]):
            if word == "loss":
                loss = float(value)
            elif word == "delay":
                delay = float(value)
            elif word == "rate":
                rate = float(value)
            elif word == "cut":
                loss = 1.0
        print("done", flush=True)
    for source, sink in ((one, other), (other, one)):
        if source in readable:
            packet = os.read(source, 65536)
            if chance.random() < loss or len(under_way) >= MOST_UNDER_WAY:
                continue
            sent_at = time.monotonic()
            if rate and sink == other:
                begins_at = max(sent_at, free_at)
                if (begins_at - sent_at) * rate + len(packet) > MOST_QUEUED:
                    continue
                sent_at = free_at = begins_at + len(packet) / rate
            number += 1
            heapq.heappush(under_way, (sent_at + delay, number, sink, packet))
    while under_way and under_way[0][0] <= time.monotonic():
        _, _, sink, packet = heapq.heappop(under_way)
        try:
            os.write(sink, packet)
        except OSError:
            pass  # that host is not there (yet)
