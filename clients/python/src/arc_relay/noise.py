"""Noise_NNpsk0_25519_ChaChaPoly_SHA256 (https://noiseprotocol.org/noise.html, revision 34).

Two sides with a common secret of 32 bytes agree on keys for one meeting. An attacker without the secret can neither read nor take
part, and one that learns it later cannot read earlier meetings.

    -> psk, e
    <- e, ee

Only the primitives are of a library. The tests hold this file to vectors of another implementation.
"""

import hashlib
import hmac
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

_NAME = b"Noise_NNpsk0_25519_ChaChaPoly_SHA256"

# The length of keys, of public keys and of hashes, in bytes.
_KEY = 32

# The length of what authenticates a message, in bytes.
TAG = 16


class Forged(Exception):
    """A message is not the next one that the other side has encrypted."""


def _derive(chaining_key: bytes, material: bytes, outputs: int) -> list[bytes]:
    """HKDF of section 4.3."""
    secret = hmac.digest(chaining_key, material, "sha256")
    derived = [b""]
    for nth in range(1, outputs + 1):
        derived.append(hmac.digest(secret, derived[-1] + bytes([nth]), "sha256"))
    return derived[1:]


class CipherState:
    """A key with the number of the next message (section 5.1). One that is replayed or out of order has a wrong number."""

    def __init__(self, key: bytes) -> None:
        self._cipher = ChaCha20Poly1305(key)
        self._next = 0

    def _nonce(self) -> bytes:
        self._next += 1
        return bytes(4) + (self._next - 1).to_bytes(8, "little")

    def encrypt(self, plaintext: bytes, data: bytes = b"") -> bytes:
        return self._cipher.encrypt(self._nonce(), plaintext, data)

    def decrypt(self, ciphertext: bytes, data: bytes = b"") -> bytes:
        try:
            return self._cipher.decrypt(self._nonce(), ciphertext, data)
        except InvalidTag as error:
            raise Forged("a message is not the peer's next one") from error


@dataclass
class Keys:
    """The keys of a finished handshake."""

    send: CipherState
    receive: CipherState


class Handshake:
    """A side of the handshake. Each method is called once, in the order of the pattern."""

    def __init__(self, secret: bytes, prologue: bytes, own: bytes | None = None) -> None:
        """`own` is the private key of this side, only for tests."""
        if len(secret) != _KEY:
            raise ValueError("the secret has 32 bytes")
        self._own = X25519PrivateKey.generate() if own is None else X25519PrivateKey.from_private_bytes(own)
        self._hash = self._chaining_key = hashlib.sha256(_NAME).digest()
        self._mix_hash(prologue)
        self._chaining_key, mixed, key = _derive(self._chaining_key, secret, 3)
        self._mix_hash(mixed)
        self._cipher = CipherState(key)

    def write_first(self) -> bytes:
        """The first message, of the initiator."""
        return self._send_key() + self._encrypt(b"")

    def read_first(self, message: bytes) -> None:
        self._receive_key(message)
        self._decrypt(message[_KEY:])

    def write_second(self, first: bytes) -> tuple[bytes, Keys]:
        """The second message, of the responder, for the first one."""
        key = self._send_key()
        self._mix_shared(first)
        message = key + self._encrypt(b"")
        theirs, ours = self._split()
        return message, Keys(send=ours, receive=theirs)

    def read_second(self, message: bytes) -> Keys:
        self._receive_key(message)
        self._mix_shared(message)
        self._decrypt(message[_KEY:])
        ours, theirs = self._split()
        return Keys(send=ours, receive=theirs)

    def _send_key(self) -> bytes:
        key = self._own.public_key().public_bytes_raw()
        self._mix_hash(key)
        self._mix_key(key)
        return key

    def _receive_key(self, message: bytes) -> None:
        if len(message) < _KEY + TAG:
            raise Forged("a handshake message is too short")
        self._mix_hash(message[:_KEY])
        self._mix_key(message[:_KEY])

    def _mix_shared(self, message: bytes) -> None:
        self._mix_key(self._own.exchange(X25519PublicKey.from_public_bytes(message[:_KEY])))

    def _mix_hash(self, data: bytes) -> None:
        self._hash = hashlib.sha256(self._hash + data).digest()

    def _mix_key(self, material: bytes) -> None:
        self._chaining_key, key = _derive(self._chaining_key, material, 2)
        self._cipher = CipherState(key)

    def _encrypt(self, payload: bytes) -> bytes:
        ciphertext = self._cipher.encrypt(payload, self._hash)
        self._mix_hash(ciphertext)
        return ciphertext

    def _decrypt(self, ciphertext: bytes) -> bytes:
        payload = self._cipher.decrypt(ciphertext, self._hash)
        self._mix_hash(ciphertext)
        return payload

    def _split(self) -> tuple[CipherState, CipherState]:
        """The keys of the initiator's messages, and of the responder's."""
        first, second = _derive(self._chaining_key, b"", 2)
        return CipherState(first), CipherState(second)
