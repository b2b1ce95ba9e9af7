"""Joins two programs that know the same pair code, by an arc-relay.

    async with arc_relay.connect("wss://relay.example", code) as peer:
        async for message in peer:
            await peer.send(message)  # an echo

A connection outlives the WebSockets that it consists of: it reconnects until it is closed, or until the relay says that coming again
is of no use. A message that is under way when a WebSocket fails may or may not have arrived.
"""

from .connection import Closed, Connection, Draining, Event, Paired, Reconnecting, State, Unpaired, Waiting
from .connection import Connection as connect

__all__ = ["Closed", "Connection", "Draining", "Event", "Paired", "Reconnecting", "State", "Unpaired", "Waiting", "connect"]
