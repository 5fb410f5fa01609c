"""What a policy is assembled from, and whom it tells of its plans. Data only."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Literal

from wavserve.core.errors import BrokenLimit
from wavserve.core.messages import ActionChunk
from wavserve.core.spec import PolicySpec
from wavserve.core.types import Clock, PlanRequest
from wavserve.policy.golden import GoldenCheck
from wavserve.policy.placement import Placement
from wavserve.policy.sessions import Session, SessionStore
from wavserve.system.vital_tasks import OnDeath, ignore_death

Keep = Callable[[PlanRequest, Session, ActionChunk], Coroutine[object, object, None]]
"""Receives every committed plan: the request, the session as it was before, the answer."""
OnPlan = Callable[[ActionChunk, PlanRequest], None]
"""Receives the first answer to each plan, and the request that it answers."""


@dataclass(frozen=True, slots=True)
class PolicyParts:
    """What a policy is assembled from."""

    spec: PolicySpec
    digest: str
    """of the weights, as the backend reports it"""
    placement: Placement
    sessions: SessionStore
    max_plans: int
    """plans that run at a time; more are refused"""
    version: str
    max_bytes: float = math.inf
    """bytes that requests under way hold; more are refused"""
    golden: GoldenCheck | None = None
    """a device that fails it gets no plans"""
    keep: Keep | None = None
    on_plan: OnPlan = lambda chunk, request: None
    on_missed: Callable[[Mapping[str, float]], None] = lambda stage_s: None
    """called for every request whose plan was admitted and was not ready by the deadline, with the seconds of the
    stages that had ended"""
    on_refused: Callable[[str], None] = lambda reason: None
    """called for every request that is refused because there is no place, no room or no time for its plan, with the
    `RefusalReason` or `deadline`"""
    on_broken: Callable[[Literal["cut", "refused"], BrokenLimit], None] = lambda *_: None
    """called for every plan that breaks a limit of the policy, and whose chunk is cut or refused"""
    on_unusual: Callable[[str], None] = lambda name: None
    """called for every dimension of a state that is far outside its statistics, with its name"""
    on_death: OnDeath = ignore_death
    """receives the name of a vital task that died"""
    clock: Clock = time.monotonic
    unix_clock: Clock = time.time
