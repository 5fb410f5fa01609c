"""Whether a robot's client connects again after an error, and when. Knows neither link nor clock."""

from __future__ import annotations

from collections.abc import Callable

from wavserve.core.errors import InvalidRequest, RobotBusy, StaleEpoch, UnknownSession, Unsupported, WavserveError

LOST_SESSION = (StaleEpoch, UnknownSession)
"""Another stream has the session, it was reset, or it expired. The next stream opens a new one."""
_FINAL = (InvalidRequest, Unsupported)
"""Errors that another attempt does not mend, except those of a lost session."""


def is_final(error: WavserveError, had_session: bool) -> bool:
    """Whether another attempt cannot mend the error.

    `had_session`: the client had a stream before, or resumes one of an earlier run. A living stream with its robot id
    may then be its own one, which the server has not given up yet.
    """
    if isinstance(error, RobotBusy):
        return not had_session
    return isinstance(error, _FINAL) and not isinstance(error, LOST_SESSION)


class Backoff:
    """The pauses between attempts: drawn from 0 to a bound that doubles until a stream has lived."""

    def __init__(self, first_s: float, longest_s: float, draw: Callable[[float, float], float]) -> None:
        """`draw`: gives a number between two others."""
        self._first_s, self._longest_s, self._draw = first_s, longest_s, draw
        self._attempts = 0

    def pause_s(self, lived_s: float) -> float:
        """The pause before the next attempt. `lived_s`: how long the stream lived; 0: none was opened."""
        self._attempts = 0 if lived_s >= self._longest_s else self._attempts
        bound_s = min(self._longest_s, self._first_s * 2**self._attempts)
        self._attempts = min(self._attempts + 1, 16)
        return self._draw(0.0, bound_s)
