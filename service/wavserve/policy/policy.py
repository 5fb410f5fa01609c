"""One policy for many robots: one observation in, one chunk of actions out.

`plan` loads the session, executes the plan, commits the session and answers. A plan that is refused, cancelled or late
before its commit leaves the session as it was. Knows no status codes and no wire format.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import secrets
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np

from wavserve.core.errors import DeadlineExceeded, NotReady, SequenceConflict, UnknownPolicy, UnknownSession
from wavserve.core.messages import ActionChunk
from wavserve.core.normalise import Normaliser
from wavserve.core.options import merge_options
from wavserve.core.spec import PolicySpec
from wavserve.core.types import Clock, PlanRequest
from wavserve.planning.device import Device, Health
from wavserve.planning.timings import Progress
from wavserve.policy import digests
from wavserve.policy.execution import Outcome, PlanExecutor
from wavserve.policy.inflight import InFlightPlan, ResolvedRequest, answer_of_retry, under_way
from wavserve.policy.placement import Placement
from wavserve.policy.sessions import LastPlan, Session, SessionStore
from wavserve.scheduling.permits import Permit, Permits

T = TypeVar("T")

log = logging.getLogger(__name__)

_SESSION_CHANGED = "it was reset, it expired or another plan was committed in the meantime"

Keep = Callable[[PlanRequest, Session, ActionChunk], Coroutine[object, object, None]]
"""Receives every committed plan: the request, the session as it was before, the answer."""


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
    keep: Keep | None = None
    on_plan: Callable[[ActionChunk], None] = lambda chunk: None
    on_missed: Callable[[], None] = lambda: None
    """called for every plan that misses its deadline"""
    clock: Clock = time.monotonic


class Policy:
    """Serves one policy. `warm` turns true after `warm_up` has planned once for real, and false when draining."""

    def __init__(self, parts: PolicyParts) -> None:
        self.spec = parts.spec
        self.digest = parts.digest
        self.warm = False
        self._parts = parts
        self._executor = PlanExecutor(
            parts.spec, parts.digest, parts.version, parts.placement, Normaliser(parts.spec), parts.clock
        )
        self._in_flight: dict[str, InFlightPlan] = {}  # by session, or by a key of its own for a plan that opens one
        self._permits = Permits(parts.max_plans, lambda: len(self._in_flight), self._soonest_s)
        self._tasks: set[asyncio.Task[object]] = set()  # running plans, and records being written

    @property
    def ready(self) -> bool:
        """Whether plans are taken."""
        return self.warm and self._parts.placement.ready

    @property
    def plans_in_flight(self) -> int:
        return len(self._in_flight)

    async def plan(
        self, request: PlanRequest, deadline: float | None = None, permit: Permit | None = None
    ) -> ActionChunk:
        """Plans from one observation. `deadline` is absolute, in seconds of the policy's (monotonic) clock; `permit`,
        from `reserve`, is released once the plan has a place of its own.

        Raises UnknownPolicy, InvalidRequest (planner options, instruction), UnknownSession, SequenceConflict,
        Overloaded, NotReady, DeadlineExceeded and BackendError; in each case the session is as it was.
        """
        self._check_ready()
        key = request.session_id or f"new-{secrets.token_hex(8)}"
        resolved = self._resolve(request, math.inf if deadline is None else deadline, key, permit or Permit())
        try:
            while True:
                in_flight = self._join_or_start(key, resolved)
                try:
                    return await self._await(in_flight, resolved.deadline)
                except DeadlineExceeded:
                    if in_flight.resolved is resolved or self._parts.clock() >= resolved.deadline:
                        raise
                finally:  # the loop starts a plan again that ended by another caller's deadline
                    if in_flight.waiters == 0 and self._in_flight.get(key) is in_flight:
                        del self._in_flight[key]
        except DeadlineExceeded:
            self._parts.on_missed()
            raise

    @contextlib.contextmanager
    def reserve(self, deadline: float | None) -> Iterator[Permit]:
        """Keeps a place for a request whose headers are known, while its body is read.

        Raises NotReady, DeadlineExceeded or Overloaded where every request would be refused: the smallest plan is
        judged, and its time is kept.
        """
        self._check_ready()
        self._permits.check_room()
        with self._permits.keep(self._hold_time(deadline)) as permit:
            yield permit

    async def reset(self, session_id: str) -> None:
        """Forgets the session's frame memory; a plan that runs in it is answered with SequenceConflict."""
        session = await self._load_session(session_id)
        if not await self._parts.sessions.commit(session.forget()):
            raise SequenceConflict(
                "session_id", "an unchanged session", "another plan was committed in the meantime; retry"
            )

    async def warm_up(self) -> None:
        """Plans for real on every device that is up, so that the first robot finds all warm and timed."""
        for device in self._parts.placement.devices:
            if device.health() is Health.UP:
                await self._executor.warm_up(device, self._warm_up_requests(device))
        self.warm = True

    async def drain(self, timeout_s: float | None = None) -> None:
        """Takes no more plans and waits for those that run; the rest is answered with NotReady after `timeout_s`."""
        self.warm = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._tasks:  # a plan that ends may leave a record to be written
                    await asyncio.wait(self._tasks)
        late = list(self._tasks)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    def _check_ready(self) -> None:
        if not self.ready:
            raise NotReady("the models are being repaired" if self.warm else "the service is starting or draining")

    def _soonest_s(self) -> float:
        """Seconds until the first running plan is predicted to end."""
        return min(device.planner.admission.soonest_s() for device in self._parts.placement.devices)

    def _hold_time(self, deadline: float | None) -> Callable[[], None]:
        """Keeps device time for the smallest plan; returns what gives it back. No deadline: no time is at stake."""
        device = self._parts.placement.least_loaded()
        if device is None or deadline is None:
            return lambda: None
        # mode off alone would do; merge_options, which sets K to 0 for it, is not called here
        smallest = replace(self.spec.planner, mode="off", num_iterations=0, estimate_value=False)
        admission = device.planner.admission
        return partial(admission.leave, admission.admit(device.planner.demand("", smallest, 0), deadline))

    def _resolve(
        self, request: PlanRequest, deadline: float, robot: str = "", permit: Permit | None = None
    ) -> ResolvedRequest:
        if request.policy not in (None, self.spec.name):
            raise UnknownPolicy("policy", self.spec.name, repr(request.policy))
        config = merge_options(self.spec.planner, self.spec.bounds, dict(request.options))
        inputs = digests.input_digests(request)
        seed = secrets.randbits(53) if request.seed is None else request.seed
        content, progress = digests.content_digest(request, inputs), Progress(self._parts.clock)
        return ResolvedRequest(request, config, seed, inputs, content, deadline, robot, permit or Permit(), progress)

    def _warm_up_requests(self, device: Device) -> Iterator[ResolvedRequest]:
        """Requests with black frames and one slice of samples."""
        samples = min(self.spec.planner.num_video_samples, device.planner.forecast.max_slice)
        slice_of = {"num_video_samples": samples, "video_elite_fraction": 1.0, "value_elite_fraction": 1.0}
        images = {c.name: np.zeros((c.height, c.width, 3), np.uint8) for c in self.spec.cameras}
        state = np.zeros(self.spec.state.dim, np.float32)
        for iterations in (1, 1, 0) if samples > 1 else (0,):
            options = {**slice_of, "num_iterations": iterations}
            request = PlanRequest(images=images, state=state, instruction="warm up", seed=0, options=options)
            yield self._resolve(request, math.inf)

    def _join_or_start(self, key: str, resolved: ResolvedRequest) -> InFlightPlan:
        """The running plan that a request is a retry of, or its own. Raises SequenceConflict and Overloaded."""
        in_flight, request = self._in_flight.get(key), resolved.request
        if in_flight is None or in_flight.task.done():
            in_flight = self._in_flight[key] = self._start(resolved)
        elif (in_flight.resolved.request.sequence, in_flight.resolved.content) != (request.sequence, resolved.content):
            running = under_way(in_flight.resolved.request)
            raise SequenceConflict("sequence", "one plan at a time in a session", running)
        if in_flight.resolved is not resolved:
            resolved.permit.release()  # the running plan has a place of its own
        return in_flight

    def _start(self, resolved: ResolvedRequest) -> InFlightPlan:
        self._permits.take_over(resolved.permit)
        return InFlightPlan(resolved, self._in_background(self._run(resolved)))

    def _in_background(self, work: Coroutine[object, object, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_done)
        return task

    def _on_done(self, task: asyncio.Task[T]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # waiters get the error; asyncio need not report one that nobody waits for

    async def _await(self, in_flight: InFlightPlan, deadline: float) -> ActionChunk:
        in_flight.waiters += 1
        try:
            async with asyncio.timeout(None if deadline == math.inf else deadline - self._parts.clock()):
                chunk = await asyncio.shield(in_flight.task)
            if self._parts.clock() > deadline:
                raise TimeoutError  # the loop was held up, and the timeout with it
            return chunk
        except TimeoutError:
            raise in_flight.missed_error(deadline, self._parts.clock()) from None
        except DeadlineExceeded as error:
            raise in_flight.missed_error(deadline, self._parts.clock(), error.message) from None
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if caller is not None and caller.cancelling():
                raise
            raise NotReady("the service stopped before the plan was made") from None
        finally:
            in_flight.waiters -= 1
            if in_flight.waiters == 0:
                in_flight.task.cancel()  # no caller is left

    async def _run(self, resolved: ResolvedRequest) -> ActionChunk:
        session = await self._open_session(resolved.request)
        if (answer := answer_of_retry(session, resolved)) is not None:
            return answer
        chunk, outcome = await self._executor.execute(resolved, session)
        if self._parts.clock() > resolved.deadline:
            raise DeadlineExceeded("the plan was ready too late")
        if not await self._parts.sessions.commit(_committed(session, resolved, chunk, outcome)):
            raise SequenceConflict("session_id", "an unchanged session", _SESSION_CHANGED)
        if self._parts.keep is not None:
            self._in_background(self._keep(self._parts.keep, resolved.request, session, chunk))
        self._parts.on_plan(chunk)
        return chunk

    async def _keep(self, keep: Keep, request: PlanRequest, session: Session, chunk: ActionChunk) -> None:
        """A slow or full disk delays no robot and costs it no answer."""
        try:
            await keep(request, session, chunk)
        except Exception:
            log.exception("the plan of sequence %d could not be recorded", request.sequence)

    async def _open_session(self, request: PlanRequest) -> Session:
        if request.session_id is not None:
            return await self._load_session(request.session_id)
        await self._parts.sessions.ensure_room()
        return Session.fresh(self.digest)

    async def _load_session(self, session_id: str) -> Session:
        session = await self._parts.sessions.load(session_id)
        if session is None:
            raise UnknownSession("session_id", "a session of this service (it expires when idle)", repr(session_id))
        return session if session.policy_digest == self.digest else replace(session.forget(), policy_digest=self.digest)


def _committed(session: Session, resolved: ResolvedRequest, chunk: ActionChunk, outcome: Outcome) -> Session:
    """The session once its plan is committed."""
    kept = replace(chunk, imagined={}) if chunk.imagined else chunk  # frames are large: a retry gets the actions alone
    last = LastPlan(
        instruction=resolved.inputs["instruction"],
        control_step=resolved.request.control_step,
        video=outcome.plan.video,
        value=outcome.plan.value,
        content=resolved.content,
        chunk=kept,
    )
    return replace(session, memory=outcome.memory, last=last, last_sequence=resolved.request.sequence)
