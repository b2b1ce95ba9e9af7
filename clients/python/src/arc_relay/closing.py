"""What a close code of the relay asks of a client, and how long it waits before it comes again.

docs/protocol.md has the reasons, and docs/protocol/vectors.json the same table for every client.
"""

from typing import Literal

# - retry: come again at once, then after growing pauses.
# - later: come again after the seconds that the relay names, or some.
# - occupied: come again each second, for a minute. The client's own old connection may have to be found dead.
# - stop: do not come again without a change.
Action = Literal["retry", "later", "occupied", "terminal"]

_ACTIONS: dict[int, Action] = {
    1002: "terminal",
    1003: "terminal",
    1007: "terminal",
    1009: "terminal",
    1012: "later",
    4001: "terminal",
    4400: "terminal",
    4401: "terminal",
    4403: "terminal",
    4409: "occupied",
    4429: "later",
    4503: "later",
}

# Seconds.
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0
OCCUPIED_FOR = 60.0
# A relay can ask for so long a pause. One that asks for more is broken, or not a relay.
_LONGEST_AFTER = 3600.0


def action_of(code: int) -> Action:
    """What a client does after this close code. One that the relay does not use is that of a network that failed."""
    return _ACTIONS.get(code, "retry")


def pause_before(action: Action, attempts: int, after: float | None, random: float) -> float:
    """The seconds before the next attempt, with full jitter: clients that lost one relay do not come at once.

    `attempts` have failed since one lasted, `after` is what the relay has named, and `random` is from 0 to 1.
    """
    if action == "occupied":
        return 0.5 + random
    if action == "later":
        seconds = 1.0 if after is None else min(max(after, 0.0), _LONGEST_AFTER)
        return seconds + random * max(1.0, seconds / 4)
    return random * min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(attempts, 16))
