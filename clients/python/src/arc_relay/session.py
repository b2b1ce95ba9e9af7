"""What stands between the messages of a program and those of the relay, for one meeting with a peer."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol


@dataclass
class Received:
    """What a message of the peer leads to."""

    replies: list[bytes] = field(default_factory=list)
    """What is sent at once."""
    ready: bool = False
    """Whether the session is ready for messages from now on."""
    message: bytes | None = None
    """A whole message for the program."""
    orderly: bool = False
    """Whether the peer has taken leave."""


class Session(Protocol):
    """A meeting with a peer. An error of `receive` ends it."""

    def opening(self) -> list[bytes]:
        """What is sent at once."""

    def receive(self, message: bytes) -> Received:
        """Takes a message of the peer."""

    def seal(self, message: bytes) -> Iterator[bytes]:
        """What is sent for a message of the program, once the session is ready."""

    def farewell(self) -> list[bytes]:
        """What is sent before the connection is closed."""


MakeSession = Callable[[bool], Session]
"""Makes the session of a meeting. It is told whether this side came first, and so waited."""


class Plain:
    """A session that changes nothing."""

    def opening(self) -> list[bytes]:
        return []

    def receive(self, message: bytes) -> Received:
        return Received(message=message)

    def seal(self, message: bytes) -> Iterator[bytes]:
        yield message

    def farewell(self) -> list[bytes]:
        return []
