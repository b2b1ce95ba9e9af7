"""Checks the end of transfers to a client on a slow line: endings.py --relay PORT [--proxy NAME PORT CA]... FAMILY...

The receiver is behind a route (a proxy, or none) and a slow line. The sender connects to the relay directly. Each case
prints one line with the receiver's result. No case asserts a duration; BOUND only ends a case that hangs."""

import argparse
import asyncio
import contextlib
import itertools
import random
import secrets
import ssl
from dataclasses import dataclass

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from line import Line
from raw_sender import RawSender

KB = 1000
BOUND = 240  # seconds beyond the duration of a case on an idle machine
DELAY = 0.03  # seconds each way
MESSAGE = 50 * KB
# Bytes per second, and number of messages: at least eight times the 0.5 MB that the relay holds, and ten seconds of the
# line, so that most bytes wait in kernels and the proxy. At most a minute of the line.
SPEEDS = {"80KB/s": (80 * KB, 80), "250KB/s": (250 * KB, 100), "1MB/s": (1000 * KB, 200)}
ROUTES = ("nginx", "haproxy", "caddy", "direct")
RECEIVERS = ("silent", "acknowledging", "pinging")
LEFT, LOST = "1000 peer disconnected", "1011 peer connection lost"
# The close frame for the receiver, and the close code for the sender where it is checked.
ENDINGS = {
    "closes": (LEFT, "1000"),
    "ends its stream": (LEFT, None),
    "is reset": (LOST, None),
    "violates": (LOST, "1002"),
}
BLOCK = random.Random(1).randbytes(1 << 17)


@dataclass(frozen=True)
class Result:
    family: str
    name: str
    passed: bool
    found: str


class Transfer:
    """The messages of one case, and their progress, which is reported even if the case hangs."""

    def __init__(self, count, size):
        self.count, self.size = count, size
        self.code = "endings-" + secrets.token_hex(16)
        # Makes messages of different cases differ.
        self.salt = secrets.randbelow(4096)
        self.received = 0
        self.wrong = False
        self.receiver_end = self.sender_end = "open"
        self.notes = []

    def message(self, number):
        start = (self.salt + number) % 4096
        return (number.to_bytes(4, "big") + BLOCK[start:])[: self.size]

    def came(self, message):
        if message == self.message(self.received) and self.received < self.count:
            self.received += 1
        else:
            self.wrong = True

    @property
    def complete(self):
        return self.received == self.count and not self.wrong

    def messages(self):
        return f"{self.received} of {self.count}{', then a wrong one' if self.wrong else ''}"


def line_of(rate, delay=DELAY):
    return {"rate": rate, "delay": delay}


def end_of(closed):
    return f"{closed.rcvd.code} {closed.rcvd.reason}".strip() if closed.rcvd else "no close frame"


class Clients(contextlib.AsyncExitStack):
    """All clients of one case with their lines. They end with this context."""

    def __init__(self, routes):
        super().__init__()
        self.routes = routes

    def relay(self, code):
        return f"ws://127.0.0.1:{self.routes['direct'][0]}/?pair={code}"

    async def receiver(self, route, code, line=None, ping_interval=None):
        """Connects a receiver, behind a line with these properties if there are any."""
        port, tls = self.routes[route]
        entry = (await self.enter_async_context(Line(port, **line))).port if line else port
        return await self.client(
            f"{'wss' if tls else 'ws'}://localhost:{port}/?pair={code}",
            ssl=tls,
            host="127.0.0.1",
            port=entry,
            ping_interval=ping_interval,
            # Pongs wait behind all bytes in flight.
            ping_timeout=None,
        )

    async def sender(self, code):
        # The answer to its close frame comes after the receiver has taken all bytes that the relay cannot hold.
        return await self.client(self.relay(code), ping_interval=None, close_timeout=BOUND)

    async def raw_sender(self, code):
        sender = await RawSender.connect(self.relay(code))
        self.callback(sender.abort)
        return sender

    async def client(self, url, **options):
        client = await connect(url, max_size=None, proxy=None, open_timeout=60, **options)
        self.callback(client.transport.abort)
        return client


async def drain(client, each=None):
    """Receives until the connection ends, and returns the close code and reason."""
    try:
        while True:
            message = await client.recv()
            if each:
                await each(message)
    except ConnectionClosed as closed:
        return end_of(closed)


# The matrix.


async def transfer(routes, route, kind, speed, ending):
    rate, count = SPEEDS[speed]
    case = Transfer(count, MESSAGE)
    receiver_end, sender_end = ENDINGS[ending]

    async def steps(clients):
        receiver = await clients.receiver(route, case.code, line_of(rate), 1 if kind == "pinging" else None)

        async def each(message):
            case.came(message)
            if kind == "acknowledging":
                # The library may process the close frame before this program has read the last messages.
                with contextlib.suppress(ConnectionClosed):
                    await receiver.send(b"a")

        async def receive():
            case.receiver_end = await drain(receiver, each)

        await asyncio.gather(receive(), send(clients, case, ending))

    await within(routes, case, steps, count * MESSAGE / rate)
    told = sender_end is None or case.sender_end.startswith(sender_end)
    passed = case.complete and case.receiver_end == receiver_end and told
    found = f"{case.messages()}, {case.receiver_end if case.receiver_end != receiver_end else receiver_end[:4]}"
    if not told:
        case.notes.append(f"the sender: {case.sender_end}")
    return Result("matrix", f"{route} {kind} {speed} {ending}", passed, "; ".join([found, *case.notes]))


async def send(clients, case, ending):
    if ending == "closes":
        sender = await clients.sender(case.code)
        # Unread acknowledgements would block the answer to the close frame.
        reading = asyncio.create_task(drain(sender))
        await send_all(sender, case)
        await sender.close(1000)
        case.sender_end = await reading
        return
    sender = await clients.raw_sender(case.code)
    await send_all(sender, case)
    if ending == "is reset":
        await sender.reset()
        return
    if ending == "ends its stream":
        sender.end_stream()
    else:
        sender.violate()
    close = await sender.reading
    case.sender_end = str(close.code) if close else "no close frame"


async def send_all(sender, case):
    for number in range(case.count):
        await sender.send(case.message(number))


async def within(routes, case, steps, seconds):
    """Runs a case within its time limit. A failure becomes a note beside the number of received messages."""
    try:
        async with asyncio.timeout(BOUND + 3 * seconds), Clients(routes) as clients:
            await steps(clients)
    except TimeoutError:
        case.notes.append("hangs")
    except Exception as error:
        case.notes.append(f"{type(error).__name__} {error}")


# The other families: the sender stays, and the receiver closes after the last message.


async def received_in_peace(routes, family, name, case, seconds, route, line=None, work=0.0, third=False):
    """The sender sends all messages and waits. The receiver works `work` seconds on each message, and then closes.

    With `third`, another client tries to join the pair after the first message."""

    async def steps(clients):
        receiver = await clients.receiver(route, case.code, line)
        sender = await clients.sender(case.code)
        reading = asyncio.create_task(drain(sender))
        sending = asyncio.create_task(send_all(sender, case))
        asking = None
        try:
            for _ in range(case.count):
                case.came(await receiver.recv())
                if third and not asking:
                    asking = asyncio.create_task(ask(clients, case.code))
                await asyncio.sleep(work)
        except ConnectionClosed as closed:
            case.receiver_end = end_of(closed)
        if asking:
            case.notes.append(f"third client {await asking}")
        if case.complete:
            await sending
            await receiver.close(1000)
            case.receiver_end = "closes"
        # The relay tells the sender that the receiver has left, even in the middle of its messages.
        case.sender_end = await reading
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)

    await within(routes, case, steps, seconds)
    notes = ["third client is refused with 409"] if third else []
    passed = case.complete and case.receiver_end == "closes" and case.sender_end == LEFT and case.notes == notes
    ends = f"receiver {case.receiver_end}, sender {case.sender_end}"
    return Result(family, name, passed, "; ".join([f"{case.messages()}, {ends}", *case.notes]))


async def ask(clients, code):
    try:
        await clients.client(clients.relay(code), ping_interval=None)
        return "has the seat"
    except InvalidStatus as refused:
        return f"is refused with {refused.response.status_code}"


def slow(routes):
    for route, (size, text) in itertools.product(("direct", "nginx"), ((100, "100 B"), (1 << 16, "64 KiB"))):
        name = f"{route} slow program, 100 messages of {text}"
        yield received_in_peace(routes, "slow", name, Transfer(100, size), 100, route, work=1)


def steady(routes):
    yield received_in_peace(
        routes, "steady", "nginx steady 66KB/s", Transfer(240, MESSAGE), 182, "nginx", line_of(66 * KB)
    )


def narrow(routes):
    """A TCP window that is always smaller than the next segment of the relay's kernel.

    The kernel then waits as for a zero window. After TCP_USER_TIMEOUT, it takes a client for dead that still reads."""
    line = {**line_of(80 * KB), "narrow": True}
    yield received_in_peace(routes, "narrow", "direct narrow window 80KB/s", Transfer(80, MESSAGE), 50, "direct", line)


def probe(routes):
    for route in ("direct", "nginx"):
        for name, count, size, options in (
            ("a program that works 0.3 s on each", 40, 100, {"work": 0.3}),
            ("2.2 s round trip", 40, 100, {"line": line_of(1000 * KB, 1.1)}),
            ("20 KB at 4KB/s", 20, KB, {"line": line_of(4 * KB)}),
            ("300 KB at 30KB/s", 30, 10 * KB, {"line": line_of(30 * KB)}),
        ):
            case = Transfer(count, size)
            yield received_in_peace(routes, "probe", f"{route} third, {name}", case, 15, route, third=True, **options)


FAMILIES = {"slow": slow, "steady": steady, "probe": probe, "narrow": narrow}


def matrix():
    return list(itertools.product(ROUTES, RECEIVERS, SPEEDS, ENDINGS))


def sample(size, turn):
    """`size` cases of the matrix, different ones at each turn.

    The step of 55 is coprime to the number of cases, so all are reached in time. It is a step in each dimension, so
    neighbours differ in everything. The first case is in every sample: it is the most common use of the relay, and a
    proxy breaks it easily."""
    cases = matrix()
    always = ("nginx", "acknowledging", list(SPEEDS)[turn % len(SPEEDS)], "closes")
    others = (cases[55 * (turn * (size - 1) + nth) % len(cases)] for nth in itertools.count())
    return list(dict.fromkeys([always, *itertools.islice(others, size - 1)]))


def table(results):
    """The results in Markdown, failures in bold."""

    def cell(result):
        return "" if not result else result.found if result.passed else f"**{result.found}**"

    of = {result.name: result for result in results}
    if any(result.family == "matrix" for result in results):
        yield f"| route | receiver | line | {' | '.join(ENDINGS)} |"
        yield "|---|---|---|" + "---|" * len(ENDINGS)
    for row in itertools.product(ROUTES, RECEIVERS, SPEEDS):
        cells = [cell(of.get(" ".join([*row, ending]))) for ending in ENDINGS]
        if any(cells):
            yield f"| {' | '.join([*row, *cells])} |"
    others = [result for result in results if result.family != "matrix"]
    if others:
        yield ""
        yield "| case | result |"
        yield "|---|---|"
    for result in others:
        yield f"| {result.name} | {cell(result)} |"


async def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--relay", type=int, required=True)
    arguments.add_argument("--proxy", nargs=3, action="append", default=[], metavar=("NAME", "PORT", "CA"))
    arguments.add_argument("--at-once", type=int, default=24, help="number of concurrent cases of the matrix")
    arguments.add_argument("--turn", type=int, default=0, help="number of the sample")
    arguments.add_argument("--table", help="file for the results in Markdown")
    arguments.add_argument("families", nargs="+", help="all, sample:N, or one of " + ", ".join(FAMILIES))
    arguments = arguments.parse_args()

    routes = {"direct": (arguments.relay, None)}
    for name, port, ca in arguments.proxy:
        routes[name] = (int(port), ssl.create_default_context(cafile=ca))
    room = asyncio.Semaphore(arguments.at_once)
    results = []

    async def run(case, room):
        async with room:
            result = await case
        results.append(result)
        print("ok  " if result.passed else "FAIL", f"{result.name}: {result.found}", flush=True)

    cases = []
    for family in arguments.families:
        if family in FAMILIES:
            # These cases take long, but use little of the machine, so they run beside the matrix.
            cases += [run(case, contextlib.nullcontext()) for case in FAMILIES[family](routes)]
            continue
        name, _, size = family.partition(":")
        chosen = matrix() if name == "all" else sample(int(size), arguments.turn)
        # Longest cases first, so that none runs alone at the end.
        chosen.sort(key=lambda case: list(SPEEDS).index(case[2]))
        cases += [run(transfer(routes, *case), room) for case in chosen]
    await asyncio.gather(*cases)
    if arguments.table:
        with open(arguments.table, "w") as file:
            file.writelines(row + "\n" for row in table(results))


# Failed cases print lines of their own, and do not change the exit code.
asyncio.run(main())
