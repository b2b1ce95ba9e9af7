"""A client on Python's `websockets` that echoes every message. Takes the URL of its pair.

Prints `open`, and at the end the code and reason of the close frame that it has received.
"""

import asyncio
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed


async def main(url):
    async with connect(url, max_size=None) as client:
        print("open", flush=True)
        try:
            while True:
                await client.send(await client.recv())
        except ConnectionClosed:
            pass
        print(client.close_code, client.close_reason, flush=True)


asyncio.run(main(sys.argv[1]))
