"""Which relay of a list a pair code belongs to: rendezvous hashing, as docs/scaling.md specifies it."""

import hashlib


def order(relays, code):
    """The relays in the order in which a client with this code tries them."""

    def score(relay):
        return hashlib.sha256(relay.encode() + b"\0" + code.encode()).digest()

    return sorted(relays, key=score, reverse=True)
