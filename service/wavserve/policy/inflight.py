"""A request on its way: what was decided of it, who waits for it, and whether it was answered before.

Called by the policy alone. Knows sessions and requests, and nothing of how a plan is made.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field

from wavserve.core.errors import DeadlineExceeded, Missed, SequenceConflict
from wavserve.core.spec import PlannerConfig
from wavserve.core.types import PlanRequest, PlanResult
from wavserve.planning.timings import Progress
from wavserve.policy.sessions import Session


class Permit:
    """A place kept for a request from the door on, while it is read; without holds, for whoever needs none."""

    def __init__(self, *holds: Callable[[], object]) -> None:
        """`holds`: what is to be done when the place is given up."""
        self._holds = holds

    def release(self) -> None:
        """Gives the place up, once: to the plan that enters now, or to others."""
        holds, self._holds = self._holds, ()
        for give_up in holds:
            give_up()


@dataclass(frozen=True, slots=True)
class Order:
    """A request with everything decided that it left open."""

    request: PlanRequest
    config: PlannerConfig
    seed: int
    inputs: dict[str, str]
    content: str
    deadline: float
    robot: str
    """whose share of the device pays: the session, or the request itself where none is open yet"""
    permit: Permit = field(default_factory=Permit)
    progress: Progress = field(default_factory=Progress)

    @property
    def bounded(self) -> bool:
        """Whether it has a deadline."""
        return self.deadline < math.inf


@dataclass(slots=True)
class Flight:
    """A plan under way, and how many callers wait for it: a retry joins, and the last to leave cancels it."""

    order: Order
    task: asyncio.Task[PlanResult]
    waiters: int = 0

    def missed(self, deadline: float, now: float, message: str | None = None) -> DeadlineExceeded:
        """The error of a caller whose plan came too late, with what was spent on it."""
        iterations, config = self.order.progress.iterations, self.order.config
        missed = Missed(1e3 * (deadline - now), iterations, config.num_video_samples, config.num_value_samples)
        passed = f"the deadline passed before a plan was ready; {iterations} planning iterations were done"
        return DeadlineExceeded(message or passed, missed)


def earlier_answer(session: Session, order: Order) -> PlanResult | None:
    """The first answer when the request is a retry; None when it is new. Raises SequenceConflict when it is neither."""
    sequence, answered = order.request.sequence, session.answered
    if sequence > session.last_sequence:
        return None
    if sequence < session.last_sequence or answered is None:
        raise SequenceConflict("sequence", f"more than {session.last_sequence}", sequence)
    if answered.content != order.content:
        raise SequenceConflict("sequence", f"a new number, {sequence} was answered", "the same number, other content")
    return answered.result


def under_way(request: PlanRequest) -> str:
    """What a session is busy with, in words."""
    return f"sequence {request.sequence} is under way"
