"""A request on its way: what was decided of it, who waits for it, and whether it was answered before.

Called by the policy alone. Knows sessions and requests, and nothing of how a plan is made.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from wavserve.errors import SequenceConflict
from wavserve.pace import StageTimes
from wavserve.sessions import Session
from wavserve.spec import PlannerConfig
from wavserve.types import PlanRequest, PlanResult


@dataclass(frozen=True, slots=True)
class Order:
    """A request with everything decided that it left open."""

    request: PlanRequest
    config: PlannerConfig
    seed: int
    inputs: dict[str, str]
    content: str
    deadline: float
    stages: StageTimes = field(default_factory=StageTimes)


@dataclass(slots=True)
class Flight:
    """A plan under way, and how many callers wait for it: a retry joins, and the last to leave cancels it."""

    order: Order
    task: asyncio.Task[PlanResult]
    waiters: int = 0


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
