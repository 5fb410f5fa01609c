"""A resolved request, the plan that runs for it, and the answers to its callers, retries included.

Knows sessions and requests, and nothing of how a plan is executed.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field, replace

from wavserve.core.errors import DeadlineExceeded, MissedDeadline, SequenceConflict
from wavserve.core.messages import ActionChunk
from wavserve.core.spec import PlannerConfig
from wavserve.core.tracing import Span, current
from wavserve.core.types import DeadlineResult, PlanRequest, Stop
from wavserve.planning.timings import Progress
from wavserve.policy.left_over import LeftOver
from wavserve.policy.sessions import Session
from wavserve.scheduling.permits import Permit


@dataclass(frozen=True, slots=True)
class ResolvedRequest:
    """A request with its seed, options and deadline filled in."""

    request: PlanRequest
    config: PlannerConfig
    seed: int
    left_over: LeftOver
    inputs: dict[str, str]
    """digests of images, state, instruction and left-over"""
    content: str
    """digest of everything that makes two requests the same"""
    deadline: float
    """absolute, in seconds of the policy's clock; infinite without one"""
    robot: str
    """whose share of the device pays: the session, or the request itself where no session is open yet"""
    permit: Permit = field(default_factory=Permit)
    progress: Progress = field(default_factory=Progress)

    @property
    def bounded(self) -> bool:
        """Whether it has a deadline."""
        return self.deadline < math.inf

    @property
    def identity(self) -> tuple[int, str, int | None]:
        """What a retry has in common with the request while its plan runs."""
        return self.request.sequence, self.content, self.request.epoch


@dataclass(slots=True)
class InFlightPlan:
    """A running plan and the number of callers that wait for it.

    A retry joins. The last caller to leave cancels the plan, unless its commit has begun: then it ends by itself.
    """

    resolved: ResolvedRequest
    task: asyncio.Task[ActionChunk] = field(init=False)
    waiters: int = 0
    committing: bool = False
    """whether the commit has begun; from then on only the store decides the outcome"""
    counted: bool = False
    """whether its answer is in the metrics; an answer from the session was counted before"""
    span: Span = field(default_factory=current)
    """of the caller for whom it runs"""

    def missed_error(self, deadline: float, now: float, message: str | None = None) -> DeadlineExceeded:
        """The error of a caller whose plan came too late, with what was spent on it."""
        iterations, config = self.resolved.progress.iterations, self.resolved.config
        missed = MissedDeadline(1e3 * (deadline - now), iterations, config.num_video_samples, config.num_value_samples)
        passed = f"the deadline passed before a plan was ready; {iterations} planning iterations were done"
        return DeadlineExceeded(message or passed, missed)


def answer_to(chunk: ActionChunk, resolved: ResolvedRequest, now: float) -> ActionChunk:
    """The answer to one caller: it has the caller's own epoch, and its receipt the deadline result and the slack of the
    caller's own deadline."""
    deadline, epoch = resolved.deadline, resolved.request.epoch or 0
    if chunk.epoch != epoch:
        chunk = replace(chunk, epoch=epoch)
    if deadline == math.inf:
        return chunk
    in_time = DeadlineResult.MET_DEGRADED if chunk.receipt.stopped is Stop.OUT_OF_TIME else DeadlineResult.MET
    result = in_time if now <= deadline else DeadlineResult.LATE
    return replace(chunk, receipt=replace(chunk.receipt, deadline=result, slack_s=deadline - now))


def answer_of_retry(session: Session, resolved: ResolvedRequest) -> ActionChunk | None:
    """The first answer when the request is a retry; None when it is new. Raises SequenceConflict when it is neither."""
    sequence, answered = resolved.request.sequence, session.last
    if sequence > session.last_sequence:
        return None
    if sequence < session.last_sequence or answered is None or answered.chunk is None:
        raise SequenceConflict("sequence", f"more than {session.last_sequence}", sequence)
    if answered.content != resolved.content:
        raise SequenceConflict("sequence", f"a number above {sequence}", f"{sequence} again with other content")
    return answered.chunk


def under_way(request: PlanRequest) -> str:
    """What a session is busy with, in words."""
    return f"sequence {request.sequence} is under way"
