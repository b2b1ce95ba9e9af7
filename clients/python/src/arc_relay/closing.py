"""What a close code of the relay asks of a client, and how long it waits before it comes again.

docs/protocol.md has the reasons, and docs/protocol/vectors.json the same table for every client.
"""

import math
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
_OCCUPIED_FOR = 60.0
# A WebSocket that was open for so long was no failed attempt.
_LASTING = 10.0
# Nor was one that had its peer for so long. A line that is cut every few seconds is back at once, and a relay or a peer that
# ends each meeting at its beginning is not asked more than once a second.
_MEETING = 1.0
# A WebSocket that was given up may still reach the relay, for so long, and take the place of the next one with their `side`.
_LATE = 60.0
# A relay can ask for so long a pause. One that asks for more is broken, or not a relay.
_LONGEST_AFTER = 3600.0


def action_of(code: int) -> Action:
    """What a client does after this close code. One that the relay does not use is that of a network that failed."""
    return _ACTIONS.get(code, "retry")


def seconds_in(value: object) -> float:
    """The seconds in a control message, bounded. What is no number is none."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return 0
    # An integer can be too large for a float.
    return min(max(value, 0), _LONGEST_AFTER)


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


class Attempts:
    """Counts failed attempts. Times are seconds of one clock."""

    def __init__(self) -> None:
        self._failed = 0
        self._open_at = self._met_at = math.inf
        self._occupied_since: float | None = None
        self._hurried_at = self._gave_up_at = -math.inf

    def open(self, now: float) -> None:
        """A WebSocket is open."""
        self._open_at = now

    def meet(self, now: float) -> None:
        """The peer is there."""
        self._met_at = now

    def lose(self, code: int, after: float | None, now: float, random: float) -> float | None:
        """A WebSocket has ended, or did not open. The pause before the next one, or None if there is to be none."""
        if now - self._open_at >= _LASTING or now - self._met_at >= _MEETING:
            self._failed = 0
        self._open_at = self._met_at = math.inf
        action = action_of(code)
        if code in (1006, 4002):
            self._gave_up_at = now
        if code == 4001 and now - self._gave_up_at <= _LATE:
            action, self._gave_up_at = "retry", -math.inf
        if action == "terminal":
            return None
        if action == "occupied":
            self._occupied_since = now if self._occupied_since is None else self._occupied_since
            if now - self._occupied_since > _OCCUPIED_FOR:
                return None
        elif code < 4400:
            # It was no refusal: the client had a seat, or its line failed.
            self._occupied_since = None
        self._failed += 1
        return pause_before(action, self._failed - 1, after, random)

    def hurry(self, now: float) -> bool:
        """The program knows that an attempt is of use now. The next pauses are short, as the first attempt may fail, too.

        Whether to try now. A program that asks again within 10 s changes nothing: until then the pauses are short anyway.
        """
        if now - self._hurried_at < _LASTING:
            return False
        self._hurried_at = self._gave_up_at = now
        self._failed = 0
        return True
