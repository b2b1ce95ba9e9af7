"""The other clients as peers of this one, encrypted. clients/check builds them before."""

import asyncio
import pathlib
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

import arc_relay
from arc_relay.e2e import end_to_end, link_with, new_secret

from .test_relay import BINARY, Events, next_message, relay, run

# Programs that send each message back. They take a URL, and a secret: in hexadecimal, or in a file.
JAVASCRIPT = ["node", str(pathlib.Path(__file__).parents[2] / "js/test/echo.mjs")]
RUST = [str(pathlib.Path(BINARY).parent / "examples/echo")]


@asynccontextmanager
async def secret_file() -> AsyncIterator[tuple[bytes, str]]:
    """A secret, and a file with it."""
    secret = new_secret()
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory, "secret")
        path.write_text(link_with(secret, "https://app.example/"))
        yield secret, str(path)


@pytest.mark.parametrize("program", [JAVASCRIPT, RUST], ids=["javascript", "rust"])
@pytest.mark.parametrize("comes_first", [True, False])
def test_messages_are_understood_by_the_other_clients(comes_first: bool, program: list[str]) -> None:
    async def test() -> None:
        events = Events()
        async with secret_file() as (secret, path), relay() as (url, _):
            arguments = [*program, url, secret.hex() if program is JAVASCRIPT else path]
            echo = None if comes_first else await asyncio.create_subprocess_exec(*arguments)
            if echo is not None:
                await asyncio.sleep(1)
            async with arc_relay.connect(url, **end_to_end(secret), on_event=events.append) as peer:
                if comes_first:
                    while peer.state != "waiting":
                        await asyncio.sleep(0.01)
                    echo = await asyncio.create_subprocess_exec(*arguments)
                for length in (1, 65_517, 65_518, 65_519, 3 << 20, 0):
                    message = bytes(at % 251 for at in range(length))
                    await peer.send(message)
                    assert await next_message(peer) == message
                # The one for JavaScript takes leave behind an empty message, and the one for Rust when its peer does.
                if program is JAVASCRIPT:
                    await events.when(lambda event: event == arc_relay.Unpaired(orderly=True))
            assert echo is not None and await echo.wait() == 0

    run(test)


@pytest.mark.parametrize("comes_first", [True, False])
def test_streams_of_a_pipe_are_messages_with_a_farewell(comes_first: bool) -> None:
    async def test() -> None:
        there = bytes(at % 251 for at in range(3 << 20))
        back = bytes(at % 241 for at in range(2 << 20))
        async with secret_file() as (secret, path), relay() as (url, _):
            arguments = ["pipe", url, "--secret-file", path]

            async def pipe() -> bytes:
                process = await asyncio.create_subprocess_exec(
                    BINARY, *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
                )
                output, _ = await process.communicate(there)
                assert process.returncode == 0
                return output

            running = None if comes_first else asyncio.create_task(pipe())
            if running is not None:
                await asyncio.sleep(1)
            async with arc_relay.connect(url, **end_to_end(secret)) as peer:
                if running is None:
                    while peer.state != "waiting":
                        await asyncio.sleep(0.01)
                    running = asyncio.create_task(pipe())
                await peer.send(back)
                received = b""
                while len(received) < len(there):
                    received += await next_message(peer)
                assert received == there
            assert await running == back

    run(test)
