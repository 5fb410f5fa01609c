"""Whether a robot's client connects again after an error, where, and when. Knows neither link nor clock.

It also tells the events of a handover from those that mean a loss.
"""

from __future__ import annotations

from collections.abc import Callable

from wavserve.clients.gateways import Round, Route, moves_on
from wavserve.clients.robot import Event
from wavserve.core.control import DropReason, GoAway, ObservationDropped, StreamError, Welcome
from wavserve.core.errors import (
    InvalidRequest,
    NotReady,
    RobotBusy,
    StaleEpoch,
    UnknownSession,
    Unsupported,
    WavserveError,
)

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


def is_of_handover(event: Event) -> bool:
    """Whether an event comes before or after a stream's way to another gateway, where nothing of it is lost."""
    match event:
        case GoAway():
            return True
        case Welcome():
            return event.resumed
        case ObservationDropped():
            return event.reason in (DropReason.DRAINING, DropReason.RESET)
        case StreamError():
            return moves_on(event.error()) and (event.fatal or isinstance(event.error(), NotReady))
    return False


class Backoff:
    """The pauses between attempts: drawn from 0 to a bound that doubles until a stream has lived."""

    def __init__(self, first_s: float, longest_s: float, draw: Callable[[float, float], float]) -> None:
        """`draw`: gives a number between two others."""
        self._first_s, self.longest_s, self._draw = first_s, longest_s, draw
        self._attempts = 0

    def reset(self) -> None:
        """A stream has lived: the pauses are short again."""
        self._attempts = 0

    def pause_s(self) -> float:
        """The pause before the next attempt."""
        bound_s = min(self.longest_s, self._first_s * 2**self._attempts)
        self._attempts = min(self._attempts + 1, 16)
        return self._draw(0.0, bound_s)


class Search:
    """A robot's way from gateway to gateway. There is a pause only after all of them failed in one round.

    A round ends when a stream has lived for the longest pause. What no attempt mends ends the search, at the end of its
    round: another gateway may be right.
    """

    def __init__(self, route: Route, backoff: Backoff) -> None:
        self._route, self._backoff = route, backoff
        self._round = Round(route)
        self.target = route.current
        """the gateway that the stream is with, or of the next attempt"""

    def ended(self, error: WavserveError, lived_s: float, had_session: bool) -> tuple[WavserveError, float | None]:
        """Why there is no stream, and the pause before the next attempt; None: none follows.

        `lived_s`: of the stream that ended; 0: none was opened. `had_session` as in `is_final`.
        """
        if lived_s >= self._backoff.longest_s:
            self._round = Round(self._route)
            self._backoff.reset()
        if moves_on(error):
            self._round.failed(self.target, error)
            error, following = self._round.verdict(), self._round.next()
            if following is not None:
                self.target = following
                return error, 0.0
            self._round, self.target = Round(self._route), self._route.current
        if is_final(error, had_session):
            return error, None
        if isinstance(error, RobotBusy):
            error = RobotBusy(f"{error.message}; it may be an earlier stream of this client, which tries again")
        return error, self._backoff.pause_s()
