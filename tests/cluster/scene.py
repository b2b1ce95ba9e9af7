"""What happens to a cluster, phase by phase: three relays behind two load balancers, and pairs that join all the time.

Each phase ends with two demands. Every pair with two sides meets, if both come again by the rules of docs/protocol.md. And no
live pair is cut, but those of a relay or a load balancer that was killed.
"""

import asyncio
import random
import secrets
import time

from balancers import LONG_WAIT, SHORT_WAIT, both
from client import Pair, answers, await_all, misled
from relays import DRAIN_DELAY, Relay, get

PAIRS = 300  # that join in a phase
LIVE = 150  # that stay through all phases
PARKED = 60  # with one side that waits while something changes
SPELLED = 60  # with sides that spell their code differently
BOUND = 25  # seconds in which pairs have to meet
NOTICE = 4  # seconds in which load balancers notice a relay: two checks, a second apart, and a slow machine
MISSED = 3  # seconds after which sides on different relays count as apart

# Two spellings of one code. {} is a part of its own for each pair.
SPELLINGS = [
    ("pair={}A", "pair={}%41"),
    ("pair={}+b", "pair={}%20b"),
    ("pair=%c3%a9{}", "pair=%C3%A9{}"),
    ("pair={}-~", "pair={}%2d%7E"),
    ("v=1&pair={}/%2B", "pair={}%2f%2b&v=1"),
    ("x=%26pair=1&pair={}~", "pair={}%7e&x=2"),
]
TWO_CODES = ("pair={}&pair=x", "pair={}&pair=y")
# Queries that not all load balancers read as the relay does.
ODD_QUERIES = {
    "a bare `;` in the code, and `%3B` by the other client": ("pair={};x", "pair={}%3Bx"),
    "a bare `;` in the code, by both clients": ("pair={};x", "pair={};x"),
    "a bare `%` in the code, and `%25` by the other client": ("pair={}%", "pair={}%25"),
    "a second `pair`, of which the relay takes the first": TWO_CODES,
    "the name in another spelling, such as `p%61ir`": ("p%61ir={}", "pair={}"),
}
ODD_PAIRS = 30  # for each of them
ODD_SECONDS = 6  # after which pairs have missed each other


class Scene:
    def __init__(self, kind, binary, work, source):
        self.kind, self.binary, self.work, self.source = kind, binary, work, source
        self.balancers = self.make_balancers()
        self.pair_ttl = self.balancers[0].pair_ttl if self.balancers else LONG_WAIT
        self.relays = [Relay(binary, f"relay{nth}", work, self.pair_ttl) for nth in (1, 2, 3)]
        self.active = list(self.balancers)
        self.token = secrets.token_hex(8)  # in all codes, to find it in logs
        self.count = 0
        self.live = []
        self.rows = {}
        self.readings = {}
        self.failures = 0

    def make_balancers(self):
        return both(self.kind, self.work, self.source)

    @property
    def finds_waiting_clients(self):
        """Whether a client finds its peer that waits elsewhere, without a signal to the relays."""
        return self.balancers[0].is_sticky

    def phases(self):
        return [
            self.all_up,
            self.spelled_differently,
            self.read_otherwise,
            self.relay_drains,
            self.relay_returns,
            self.relay_is_killed,
            self.relay_is_added,
            self.balancers_reload,
            self.balancer_takes_over,
        ]

    # What a phase reports.

    def check(self, name, is_right, detail=""):
        self.failures += not is_right
        print(f"{'ok  ' if is_right else 'FAIL'} {self.kind}: {name}{f': {detail}' if detail else ''}", flush=True)

    def row(self, name, count, total, *, must=True):
        self.rows[name] = f"{count} of {total}"
        if must:
            self.check(name, count == total, f"{count} of {total} pairs met")
        else:
            print(f"     {self.kind}: {name}: {count} of {total} pairs met", flush=True)

    async def expect_uncut(self, name, pairs=None):
        """All live pairs, or these, have one connection for each side since the last look, and messages still cross."""
        pairs = self.live if pairs is None else pairs
        for pair in pairs:
            pair.ping()
        alive = await await_all(pairs, lambda pair: pair.is_alive, 10)
        cut = sum(pair.was_cut for pair in pairs)
        self.check(f"{name}: no live pair is cut", (cut, alive) == (0, len(pairs)), f"{cut} cut, {alive} alive")

    # Pairs.

    def pairs(self, count, queries=None):
        """Pairs of which a third has a side at each load balancer, and the others both at one of them."""
        made = []
        for nth in range(count):
            self.count += 1
            code = f"{self.token}-{self.count}"
            places = [(0, 1), (0, 0), (1, 1)][nth % 3]
            ports = [lambda place=place: self.active[place].port for place in places]
            spelled = queries[nth % len(queries)] if queries else ("pair={}", "pair={}")
            made.append(Pair(code, ports, [query.format(code) for query in spelled]))
        return made

    async def park(self, count):
        """Pairs of which one side has joined and waits."""
        parked = self.pairs(count)
        for pair in parked:
            pair.start(0.3, nth=0)
        joined = await await_all(parked, lambda pair: pair.sides[0].joined.is_set(), BOUND)
        self.check("one side of each pair waits", joined == count, f"{joined} of {count}")
        return parked

    @staticmethod
    async def met(pairs, seconds=BOUND):
        return await await_all(pairs, lambda pair: pair.has_met, seconds)

    @staticmethod
    async def dismiss(pairs):
        await asyncio.gather(*(pair.leave() for pair in pairs))

    async def renew_live(self):
        """Live pairs, in place of those that there were. Nothing else is on the relays then."""
        await self.dismiss(self.live)
        self.live = self.pairs(LIVE)
        for pair in self.live:
            pair.start(0.5)
        met = await self.met(self.live)
        self.check("live pairs meet", met == LIVE, f"{met} of {LIVE}")

    def forget_cuts(self):
        for pair in self.live:
            for side in pair.sides:
                side.cuts.clear()

    async def rejoin(self, name, parked, recalled):
        """The relays have changed while sides wait. Their peers come: a half of them before the remedy."""
        half = len(parked) // 2
        for pair in parked[:half]:
            pair.start(0.3, nth=1)
        if self.finds_waiting_clients:
            self.row(f"{name}, half of the peers come", await self.met(parked[:half]), half)
        else:
            met = await self.met(parked[:half], MISSED)
            self.row(f"{name}, half of the peers come", met, half, must=False)
            # Otherwise the next line shows nothing.
            self.check(f"{name}: a client that waits elsewhere is missed", met < half)
            for relay in recalled:
                relay.recall()
        for pair in parked[half:]:
            pair.start(0.3, nth=1)
        self.row(f"{name}, all peers come (SIGUSR1 where needed)", await self.met(parked), len(parked))

    # The phases.

    async def run(self):
        for relay in self.relays:
            await relay.start()
        for balancer in self.balancers:
            balancer.configure(self.relays)
        await asyncio.gather(*(balancer.start() for balancer in self.balancers))
        try:
            for phase in self.phases():
                began = time.monotonic()
                self.forget_cuts()
                await phase()
                seconds, told = time.monotonic() - began, dict(sorted(answers.items()))
                print(f"     {self.kind}: {phase.__name__} took {seconds:.0f} s, answers {told}", flush=True)
                answers.clear()
            await self.dismiss(self.live)
        finally:
            await asyncio.gather(*(process.stop() for process in self.balancers))
            await asyncio.gather(*(relay.kill() for relay in self.relays))
        self.look_at_logs()
        self.check("no client meets one of another pair", not misled, f"{len(misled)} did")
        print(f"     {self.kind}: {self.count} pairs in all", flush=True)

    async def all_up(self):
        pairs = self.pairs(PAIRS)
        for pair in pairs:
            pair.start(1.0)
        self.row("all relays up", await self.met(pairs), PAIRS)
        counts = [await relay.pairs() for relay in self.relays]
        self.check("each relay has a share of the pairs", min(counts) > PAIRS // 10, f"{counts}")
        await self.dismiss(pairs)
        await self.renew_live()

    async def spelled_differently(self):
        spellings = SPELLINGS + [TWO_CODES] * self.balancers[0].takes_first_pair
        pairs = self.pairs(SPELLED, spellings)
        for pair in pairs:
            pair.start(0.3)
        self.row("codes spelled in two ways", await self.met(pairs), SPELLED)
        await self.dismiss(pairs)
        raw_key = self.balancers[0].raw_key
        if not raw_key:
            return
        # Without decoding, they must not all meet: otherwise the line above shows nothing.
        raw = both(self.kind, self.work / "raw", self.source)[0]
        raw.configure(self.relays, *raw_key)
        await raw.start()
        try:
            self.active = [raw, raw]
            pairs = self.pairs(SPELLED, SPELLINGS)
            for pair in pairs:
                pair.start(0.3)
            met = await self.met(pairs, MISSED)
            self.row("the same, hashed as sent", met, SPELLED, must=False)
            self.check("a code hashed as sent is a trap", met < SPELLED)
            await self.dismiss(pairs)
        finally:
            self.active = list(self.balancers)
            await raw.stop()

    async def read_otherwise(self):
        groups = {name: self.pairs(ODD_PAIRS, [queries]) for name, queries in ODD_QUERIES.items()}
        pairs = [pair for group in groups.values() for pair in group]
        for pair in pairs:
            pair.start(0.5)
        await self.met(pairs, ODD_SECONDS)
        for name, group in groups.items():
            met = sum(pair.has_met for pair in group)
            self.readings[name] = "meet" if met == ODD_PAIRS else "split"
            print(f"     {self.kind}: {name}: {met} of {ODD_PAIRS} pairs met", flush=True)
        await self.dismiss(pairs)

    async def relay_drains(self):
        drained = self.relays[0]
        parked = await self.park(PARKED)
        pairs = self.pairs(PAIRS)
        drained.drain()
        for pair in pairs:
            pair.start(DRAIN_DELAY + 3)
        for pair in parked:
            pair.start(DRAIN_DELAY + 3, nth=1)
        await asyncio.sleep(DRAIN_DELAY + 3)
        self.row("a relay drains", await self.met(pairs + parked), PAIRS + PARKED)
        await self.expect_uncut("a relay drains")
        # Pairs of the drained relay live on until they leave, or until --drain-timeout.
        await self.dismiss(pairs + parked)
        await self.renew_live()
        self.check("the drained relay ends when its pairs have left", await drained.end(20) == 0)

    async def relay_returns(self):
        parked = await self.park(PARKED)
        await self.relays[0].start()
        await asyncio.sleep(NOTICE)
        # With a short wait, they find each other without a signal, too.
        recalled = [] if self.pair_ttl == SHORT_WAIT else self.relays
        await self.rejoin("a relay returns", parked, recalled)
        await self.expect_uncut("a relay returns")
        await self.dismiss(parked)

    async def relay_is_killed(self):
        killed = self.relays[1]
        await self.until_only_live_pairs()
        lost = await killed.pairs()
        parked = await self.park(PARKED)
        pairs = self.pairs(PAIRS)
        await killed.kill()
        for pair in pairs:
            pair.start(3)
        for pair in parked:
            pair.start(3, nth=1)
        await asyncio.sleep(3)
        all_pairs = pairs + parked + self.live
        self.row("a relay is killed", await self.met(all_pairs), len(all_pairs))
        cut = sum(pair.was_cut for pair in self.live)
        self.check("only the killed relay's live pairs are cut", 0 < cut == lost, f"{cut} cut, it had {lost}")
        await self.dismiss(pairs + parked)
        await killed.start()
        await asyncio.sleep(NOTICE)

    async def until_only_live_pairs(self):
        async with asyncio.timeout(10):
            while sum([await relay.pairs() for relay in self.relays]) != LIVE:
                await asyncio.sleep(0.1)

    async def relay_is_added(self):
        parked = await self.park(PARKED)
        old = list(self.relays)
        self.relays.append(Relay(self.binary, "relay4", self.work, self.pair_ttl))
        await self.relays[-1].start()
        for balancer in self.balancers:
            balancer.configure(self.relays)
            await balancer.reload()
        await asyncio.sleep(NOTICE)
        await self.rejoin("a relay is added", parked, old)
        await self.expect_uncut("a relay is added")
        pairs = self.pairs(PAIRS)
        for pair in pairs:
            pair.start(0.5)
        met = await self.met(pairs)
        count = await self.relays[-1].pairs()
        self.check("the added relay has a share of the pairs", (met, count > PAIRS // 20) == (PAIRS, True), f"{count}")
        await self.dismiss(pairs + parked)

    async def balancers_reload(self):
        parked = await self.park(PARKED)
        pairs = self.pairs(PAIRS)
        for pair in pairs:
            pair.start(4)
        for pair in parked:
            pair.start(4, nth=1)
        for balancer in self.balancers:
            await asyncio.sleep(1)
            await balancer.reload()
        await asyncio.sleep(2)
        self.row("load balancers reload", await self.met(pairs + parked), PAIRS + PARKED)
        await self.expect_uncut("load balancers reload")
        await self.dismiss(pairs + parked)

    async def balancer_takes_over(self):
        parked = await self.park(PARKED)
        pairs = self.pairs(PAIRS)
        elsewhere = [pair for nth, pair in enumerate(self.live) if nth % 3 == 2]  # with both sides at the second one
        await self.balancers[0].stop()
        self.active[0] = self.balancers[1]
        for pair in pairs:
            pair.start(1)
        for pair in parked:
            pair.start(1, nth=1)
        await asyncio.sleep(1)
        all_pairs = pairs + parked + self.live
        self.row("the second load balancer takes over", await self.met(all_pairs), len(all_pairs))
        await self.expect_uncut("the second load balancer takes over", elsewhere)
        await self.dismiss(pairs + parked)

    def look_at_logs(self):
        logs = [path for path in self.work.rglob("*") if path.is_file() and path.name.endswith(("log", "out"))]
        texts = [path.read_text(errors="replace") for path in logs]
        self.check("no log has a pair code", texts and not any(self.token in text for text in texts), f"{len(texts)} logs")
        self.check("no relay logs an error", not any(" error " in path.read_text() for path in self.work.glob("relay*.log")))
