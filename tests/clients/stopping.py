"""Checks the close frames of a relay that stops. Takes the relay's address; ends when the relay has stopped."""

import asyncio
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

RELAY_SECONDS = 20


async def main(address):
    async with asyncio.timeout(RELAY_SECONDS):
        paired = f"ws://{address}/?pair=stopping"
        async with connect(paired) as a, connect(paired) as b, connect(f"ws://{address}/?pair=alone") as c:
            failed = 0
            for name, client in [("first client", a), ("second client", b), ("waiting client", c)]:
                close = await close_frame(client)
                good = close == (1001, "relay stopping")
                failed += not good
                line = f"stopping.py: {name} is closed with 1001"
                print(f"ok   {line}" if good else f"FAIL {line}: {close}", flush=True)
    return 1 if failed else 0


async def close_frame(client):
    try:
        return await client.recv()
    except ConnectionClosed as closed:
        return closed.rcvd and (closed.rcvd.code, closed.rcvd.reason)


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1])))
