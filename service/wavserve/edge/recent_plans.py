"""The last plan of each session that was answered here, for onlookers. Knows no edge.

It holds ids of sessions, which no onlooker may see: whoever knows one may plan in that session.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass, replace

from wavserve.core.messages import ActionChunk
from wavserve.core.types import Clock, PlanRequest

MAX_KEPT = 256
"""Sessions of which the last plan is kept."""


@dataclass(frozen=True, slots=True)
class RecentPlan:
    """A plan as it was answered."""

    session_id: str
    instruction: str
    chunk: ActionChunk
    """without imagined frames"""
    at: float
    """when it was answered, in seconds of the list's clock"""


class RecentPlans:
    """The last plans, one a session; the oldest is dropped."""

    def __init__(self, clock: Clock = time.monotonic, max_kept: int = MAX_KEPT) -> None:
        self._clock = clock
        self._max_kept = max_kept
        self._plans: OrderedDict[str, RecentPlan] = OrderedDict()  # by session id, oldest first

    def note(self, chunk: ActionChunk, request: PlanRequest) -> None:
        """A plan was answered. It keeps no image."""
        kept = replace(chunk, imagined={}) if chunk.imagined else chunk
        self._plans.pop(chunk.session_id, None)
        self._plans[chunk.session_id] = RecentPlan(chunk.session_id, request.instruction, kept, self._clock())
        if len(self._plans) > self._max_kept:
            self._plans.popitem(last=False)

    def of(self, session_id: str | None) -> RecentPlan | None:
        return None if session_id is None else self._plans.get(session_id)

    def within(self, seconds: float) -> list[RecentPlan]:
        """Plans that were answered within the last `seconds`, newest first."""
        since = self._clock() - seconds
        return [plan for plan in reversed(self._plans.values()) if plan.at >= since]
