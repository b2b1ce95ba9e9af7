"""Clients that find their relay by themselves, with the reference implementation and the rules of docs/scaling.md."""

import asyncio
import pathlib
import sys

from client import Pair, Side
from scene import Scene

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "docs/rendezvous"))

from rendezvous import order  # noqa: E402

# How long a client waits on another relay than its first one. A tenth of the seconds in docs/scaling.md, to save time.
WAIT_ELSEWHERE = 3


class ShardingSide(Side):
    def __init__(self, ports, code):
        self.ports, self.order = ports, order(list(ports), code)
        self.relay = self.order[0]
        super().__init__(lambda: self.ports[self.relay], f"pair={code}", code.encode())

    async def visit(self):
        """Begins with the first relay, and goes on with the next one where a relay cannot be reached or answers 503."""
        for nth, self.relay in enumerate(self.order):
            visit = asyncio.ensure_future(super().visit())
            try:
                if nth > 0:
                    await self.wait_elsewhere(visit)
                status, reason = await visit
            finally:
                visit.cancel()
            if status not in (0, 503):
                break
        return status, reason

    async def wait_elsewhere(self, visit):
        met = asyncio.ensure_future(self.met.wait())
        try:
            await asyncio.wait([visit, met], timeout=WAIT_ELSEWHERE, return_when=asyncio.FIRST_COMPLETED)
        finally:
            met.cancel()
        if self.connection and not self.met.is_set():
            self.connection.leave()


class ShardingPair(Pair):
    def __init__(self, ports, code):
        self.sides = [ShardingSide(ports, code) for _ in range(2)]


class Sharding(Scene):
    """The scene without load balancers."""

    finds_waiting_clients = True

    def make_balancers(self):
        return []

    def phases(self):
        return [self.all_up, self.relay_drains, self.relay_returns, self.relay_is_killed]

    def pairs(self, count):
        made = []
        for _ in range(count):
            self.count += 1
            ports = {f"wss://{relay.name}.example.org": relay.port for relay in self.relays}
            made.append(ShardingPair(ports, f"{self.token}-{self.count}"))
        return made
