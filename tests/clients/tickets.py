"""Checks of tickets and tokens with PyJWT, and with the programs of docs/access.md as they stand there.

$RELAY is the relay's binary, and $ACCESS the document. Starts relays of its own. Prints a line for each check, and then those of
tickets.mjs: the same in Node and Chromium.
"""

import asyncio
import base64
import contextlib
import hashlib
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
import traceback

import jwt
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

CHECK_SECONDS = 20
SECRET = b"a secret of thirty-two bytes ..."
ACCESS = pathlib.Path(os.environ["ACCESS"]).read_text()

checks = []


def check(function):
    checks.append(function)
    return function


def block(language, part):
    """The block of code of the document in this language that contains this."""
    found = [text for text in re.findall(rf"^```{language}\n(.*?)^```", ACCESS, re.M | re.S) if part in text]
    assert len(found) == 1, f"{len(found)} blocks with {part}"
    return found[0]


def base64url(data):
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def claims(**others):
    return {"exp": int(time.time()) + 60, **others}


@contextlib.asynccontextmanager
async def relay(*arguments):
    """Runs a relay, and gives its address and its process."""
    command = [os.environ["RELAY"], "start", "--host", "127.0.0.1", "--port", "0", *arguments]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    try:
        line = (await process.stdout.readline()).decode()
        yield re.match(r"arc-relay listening on ws://(\S+) ", line)[1], process
    finally:
        process.terminate()
        status = await process.wait()
    assert status == 0, f"the relay ends with {status}"


@contextlib.asynccontextmanager
async def relay_with_keys(*lines):
    path = pathlib.Path("keys")
    path.write_text("".join(f"{line}\n" for line in lines))
    async with relay("--ticket-key-file", path) as (address, process):
        yield address, process


async def admitted(address, ticket, code="x", **options):
    """Whether both clients of a pair join with this ticket. Otherwise, the status and the line of the rejection."""
    headers = {"Authorization": f"Bearer {ticket}"} if ticket is not None else {}
    url = f"ws://{address}/?pair={code}"
    try:
        async with connect(url, additional_headers=headers, **options) as a:
            async with connect(url, additional_headers=headers, **options) as b:
                await a.send(b"hello")
                return await b.recv() == b"hello"
    except InvalidStatus as refused:
        return refused.response.status_code, refused.response.body.decode()


@check
async def programs_of_the_document_make_a_key_and_a_ticket():
    shell = block("sh", "ticket-key.pem")
    start = "arc-relay start --ticket-key-file ticket-keys\n"
    assert shell.endswith(start)
    subprocess.run(["bash", "-euc", shell.removesuffix(start)], check=True)
    program = {}
    exec(block("python", "def ticket"), program)
    async with relay("--ticket-key-file", "ticket-keys") as (address, _):
        assert await admitted(address, program["ticket"]("x")) is True
        assert await admitted(address, program["ticket"]("y")) == (401, "ticket is for another pair\n")


@check
async def tickets_of_pyjwt_are_admitted():
    private = jwt.algorithms.Ed25519PrivateKey.generate()
    public = private.public_key().public_bytes_raw()
    code, path = "caf\N{LATIN SMALL LETTER E WITH ACUTE} 1", "caf%C3%A9+1"
    pair = claims(pair=code, side="phone", rate=1 << 20, nbf=int(time.time()), aud="arc-relay", sub="ignored")
    pair_sha256 = claims(pair_sha256=base64url(hashlib.sha256(code.encode()).digest()), aud=["x", "arc-relay"])
    async with relay_with_keys(f"hs256 {base64url(SECRET)}", f"ed25519 {base64url(public)} blue") as (address, _):
        for given in [claims(), pair, pair_sha256, claims(exp=time.time() + 0.5)]:
            for key, algorithm in [(SECRET, "HS256"), (private, "EdDSA")]:
                for headers in [{}, {"kid": "blue"}]:
                    ticket = jwt.encode(given, key, algorithm=algorithm, headers=headers)
                    if "side" in given:
                        # Two clients with one identity would take each other's place.
                        async with connect(f"ws://{address}/?pair={path}&side=phone&token={ticket}"):
                            pass
                    else:
                        assert await admitted(address, ticket, path) is True, (given, algorithm)


@check
async def forged_and_unfit_tickets_of_pyjwt_are_refused():
    private = jwt.algorithms.Ed25519PrivateKey.generate()
    public = private.public_key().public_bytes_raw()
    other = jwt.algorithms.Ed25519PrivateKey.generate()
    async with relay_with_keys(f"ed25519 {base64url(public)} blue") as (address, _):
        for key, algorithm, headers in [
            (None, "none", {}),
            (public, "HS256", {}),
            (base64url(public).encode(), "HS256", {}),
            (2 * SECRET, "HS512", {}),
            (other, "EdDSA", {}),
            (private, "EdDSA", {"kid": "red"}),
        ]:
            ticket = jwt.encode(claims(), key, algorithm=algorithm, headers=headers)
            assert await admitted(address, ticket) == (401, "invalid ticket\n"), (algorithm, headers)
        now = int(time.time())
        for given, line in [
            ({}, "ticket has no exp"),
            ({"exp": now - 6}, "ticket expired"),
            (claims(nbf=now + 60), "ticket not valid yet"),
            (claims(aud="x"), "ticket is for another audience"),
            (claims(pair="y"), "ticket is for another pair"),
            (claims(pair_sha256=base64url(hashlib.sha256(b"y").digest())), "ticket is for another pair"),
            (claims(rate=0), "invalid ticket"),
        ]:
            ticket = jwt.encode(given, private, algorithm="EdDSA")
            assert await admitted(address, ticket) == (401, f"{line}\n"), given
        assert await admitted(address, None) == (401, "access token required\n")


@check
async def keys_are_exchanged_while_clients_join():
    async with relay_with_keys(f"hs256 {base64url(SECRET)}") as (address, process):
        over = False

        async def join(code):
            count = 0
            while not over:
                ticket = jwt.encode(claims(), SECRET, algorithm="HS256")
                assert await admitted(address, ticket, f"{code}{count}") is True
                count += 1
            return count

        clients = [asyncio.create_task(join(code)) for code in "abc"]
        added = [os.urandom(32) for _ in range(10)]
        for secret in added:
            new = pathlib.Path("new")
            new.write_text(f"hs256 {base64url(SECRET)}\nhs256 {base64url(secret)}\n")
            new.rename("keys")
            process.send_signal(signal.SIGHUP)
            while await admitted(address, jwt.encode(claims(), secret, algorithm="HS256"), "new") is not True:
                await asyncio.sleep(0.01)
        over = True
        assert all(count > 0 for count in await asyncio.gather(*clients))
        old = jwt.encode(claims(), added[0], algorithm="HS256")
        assert await admitted(address, old) == (401, "invalid ticket\n")


async def scripts():
    """Runs tickets.mjs, which prints its own checks."""
    async with relay_with_keys(f"hs256 {base64url(SECRET)}") as (address, _):
        environment = os.environ | {
            "TICKET": jwt.encode(claims(), SECRET, algorithm="HS256"),
            "EXPIRED": jwt.encode(claims(exp=0), SECRET, algorithm="HS256"),
            "SCRIPT": block("js", "arc-relay.token."),
        }
        script = pathlib.Path(__file__).with_name("tickets.mjs")
        node = await asyncio.create_subprocess_exec("node", "--experimental-websocket", script, address, env=environment)
        return await node.wait()


async def main():
    failed = 0
    for function in checks:
        name = f"tickets.py: {function.__name__.replace('_', ' ')}"
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                await function()
            print("ok  ", name, flush=True)
        except Exception as error:
            failed += 1
            print(f"FAIL {name}: {error!r}", flush=True)
            traceback.print_exception(error)
    status = await scripts()
    return 1 if failed or status else 0


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        sys.exit(asyncio.run(main()))
