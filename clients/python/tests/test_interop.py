"""The client for JavaScript as the peer, encrypted. It has to be built: clients/check does that before."""

import asyncio
import pathlib

import pytest

import arc_relay
from arc_relay.e2e import end_to_end, new_secret

from .test_relay import Events, next_message, relay, run

ECHO = pathlib.Path(__file__).parents[2] / "js/test/echo.mjs"


@pytest.mark.parametrize("comes_first", [True, False])
def test_messages_are_understood_by_the_client_for_javascript(comes_first: bool) -> None:
    async def test() -> None:
        secret, events = new_secret(), Events()
        async with relay() as (url, _):
            arguments = ["node", str(ECHO), url, secret.hex()]
            echo = None if comes_first else await asyncio.create_subprocess_exec(*arguments)
            if echo is not None:
                await asyncio.sleep(1)
            async with arc_relay.connect(url, **end_to_end(secret), on_event=events.append) as peer:
                if comes_first:
                    while peer.state != "waiting":
                        await asyncio.sleep(0.01)
                    echo = await asyncio.create_subprocess_exec(*arguments)
                for length in (1, 65_518, 65_519, 3 << 20, 0):
                    message = bytes(length % 251 for length in range(length))
                    await peer.send(message)
                    assert await next_message(peer) == message
                await events.when(lambda event: event == arc_relay.Unpaired(orderly=True))
            assert echo is not None and await echo.wait() == 0

    run(test)
