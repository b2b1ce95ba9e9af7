#!/usr/bin/env python3
"""A bad line between two hosts: `line.py ONE OTHER SEED`.

Creates a network device (TUN) of each name, and carries every packet from one to the other. Commands on standard input,
one a line, set its properties:

    loss 0.1    the share of lost packets
    delay 0.1   seconds, each way
    rate 4000   bytes per second towards OTHER, 0 for no limit
    cut         no packet arrives any more

tc-netem does the same, but not every kernel has it.
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
MOST_IN_FLIGHT = 5000  # packets; as in any router, further packets are lost
MOST_QUEUED = 64 * 1024  # bytes queued for a line with a rate, a large buffer as on mobile lines


def device(name):
    file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(file, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return file


one, other = device(sys.argv[1]), device(sys.argv[2])
chance = random.Random(int(sys.argv[3]))
loss, delay, rate = 0.0, 0.0, 0.0
free_at = 0.0  # the time at which the line with a rate has sent its queue
in_flight = []  # (time of arrival, number, sink, packet)
number = 0
print("ready", flush=True)
while True:
    wait = max(0.0, in_flight[0][0] - time.monotonic()) if in_flight else None
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
            if chance.random() < loss or len(in_flight) >= MOST_IN_FLIGHT:
                continue
            sent_at = time.monotonic()
            if rate and sink == other:
                begins_at = max(sent_at, free_at)
                if (begins_at - sent_at) * rate + len(packet) > MOST_QUEUED:
                    continue
                sent_at = free_at = begins_at + len(packet) / rate
            number += 1
            heapq.heappush(in_flight, (sent_at + delay, number, sink, packet))
    while in_flight and in_flight[0][0] <= time.monotonic():
        _, _, sink, packet = heapq.heappop(in_flight)
        try:
            os.write(sink, packet)
        except OSError:
            pass  # that host does not exist (yet)
