"""End-to-end encryption: the relay sees lengths and times, and nothing else.

    secret = new_secret()                 # 32 random bytes: shown to the peer as a link or a QR code
    async with connect(url, **end_to_end(secret)) as peer: ...

The secret gives the pair code and the key that authenticates each meeting. docs/protocol.md has the details for other
languages. It needs the extra `e2e`: the package `cryptography`.
"""

import base64
import secrets
from collections.abc import Iterator
from typing import TypedDict
from urllib.parse import urldefrag

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from .noise import TAG, Forged, Handshake, Keys
from .session import MakeSession, Received

_PROLOGUE = b"arc-relay.e2e.v1"

# The longest encrypted message, in bytes: the longest of Noise, which the relay forwards whole.
_LONGEST = 65_535

# The most bytes of a message in one record: without the byte of its kind, and what authenticates it.
_PART = _LONGEST - TAG - 1

# The kinds of records.
_LAST, _MORE, _FAREWELL = range(3)


class EndToEnd(TypedDict):
    """The arguments of an encrypted connection."""

    code: str
    session: MakeSession


def new_secret() -> bytes:
    """A secret for a new pair: 32 random bytes."""
    return secrets.token_bytes(32)


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def link_with(secret: bytes, page: str) -> str:
    """A link that carries the secret in its fragment. Browsers send no fragment to a server."""
    return f"{urldefrag(page).url}#{_encode(secret)}"


def secret_in(link: str) -> bytes:
    """The secret in a link. Raises `ValueError` if there is none."""
    fragment = urldefrag(link).fragment
    try:
        secret = base64.b64decode(fragment + "=" * (-len(fragment) % 4), altchars=b"-_", validate=True)
    except ValueError:
        secret = b""
    if len(secret) != 32 or _encode(secret) != fragment:
        raise ValueError("the link has no secret")
    return secret


def _derived(secret: bytes, purpose: str, length: int) -> bytes:
    return HKDF(SHA256(), length, None, f"arc-relay.e2e.v1 {purpose}".encode()).derive(secret)


def device_secret(secret: bytes, device: str) -> bytes:
    """A secret for each device of one program, from one secret. The program listens at the code of each."""
    return _derived(secret, f"device {device}", 32)


def end_to_end(secret: bytes, longest: int = 64 << 20) -> EndToEnd:
    """The arguments of an encrypted connection. A message of more than `longest` bytes ends a meeting."""
    key = _derived(secret, "key", 32)
    return {
        "code": _encode(_derived(secret, "pair code", 16)),
        "session": lambda is_first: Encrypted(key, longest, is_first),
    }


class Encrypted:
    """A meeting. The side that waited answers the handshake of the other one."""

    def __init__(self, key: bytes, longest: int, is_first: bool) -> None:
        self._handshake = Handshake(key, _PROLOGUE)
        self._longest, self._is_first = longest, is_first
        self._keys: Keys | None = None
        self._message = bytearray()
        self._is_over = False

    def opening(self) -> list[bytes]:
        return [] if self._is_first else [self._handshake.write_first()]

    def receive(self, message: bytes) -> Received:
        if self._keys is None:
            return self._greet(message)
        if self._is_over:
            raise Forged("a record behind the farewell")
        record = self._keys.receive.decrypt(message)
        kind, part = record[:1], record[1:]
        if kind == bytes([_FAREWELL]):
            self._is_over = True
            return Received(orderly=not self._message)
        if kind not in (bytes([_LAST]), bytes([_MORE])):
            raise Forged("an unknown kind of record")
        self._message += part
        if len(self._message) > self._longest:
            raise Forged("a message is too long")
        if kind == bytes([_MORE]):
            return Received()
        whole, self._message = bytes(self._message), bytearray()
        return Received(message=whole)

    def _greet(self, message: bytes) -> Received:
        if not self._is_first:
            self._keys = self._handshake.read_second(message)
            return Received(ready=True)
        self._handshake.read_first(message)
        answer, self._keys = self._handshake.write_second(message)
        return Received(ready=True, replies=[answer])

    def seal(self, message: bytes) -> Iterator[bytes]:
        for at in range(0, len(message) or 1, _PART):
            end = at + _PART
            yield self._record(_MORE if end < len(message) else _LAST, message[at:end])

    def farewell(self) -> list[bytes]:
        return [] if self._keys is None else [self._record(_FAREWELL, b"")]

    def _record(self, kind: int, part: bytes) -> bytes:
        assert self._keys is not None
        return self._keys.send.encrypt(bytes([kind]) + part)
