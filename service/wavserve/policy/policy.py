"""The door both edges call: one observation in, one chunk of actions out.

`plan` takes an admission permit, looks into the session, plans, denormalises, remembers and answers. A plan that is
refused, cancelled or late leaves the session as it was. Below it lie sessions, normalisation and the planner; it knows
no status codes and no wire format.
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

from wavserve.core.errors import (
    DeadlineExceeded,
    NotReady,
    Overloaded,
    SequenceConflict,
    UnknownPolicy,
    UnknownSession,
)
from wavserve.core.normalise import Normaliser
from wavserve.core.options import merge_options
from wavserve.core.spec import PolicySpec
from wavserve.core.types import Clock, PlanRequest, PlanResult
from wavserve.planning.device import Device, Health
from wavserve.planning.timings import Progress
from wavserve.policy import digests
from wavserve.policy.execution import Maker
from wavserve.policy.inflight import Flight, Order, Permit, earlier_answer, under_way
from wavserve.policy.placement import Placement
from wavserve.policy.sessions import Answered, LastPlan, Session, SessionStore
from wavserve.scheduling.schedule import MIN_RETRY_S

T = TypeVar("T")

log = logging.getLogger(__name__)

PERMIT_S = 1.0
"""How long time is kept for a request that is still being read: whoever sends slower must not keep it from others."""

_MEANWHILE = "it was reset, it expired or another plan was committed meanwhile"

Keep = Callable[[PlanRequest, Session, PlanResult], Coroutine[object, object, None]]
"""Told of every answered plan: the request, the session as it was before, the answer."""


@dataclass(frozen=True, slots=True)
class PolicyParts:
    """What a policy is assembled from."""

    spec: PolicySpec
    digest: str
    """of the weights, as the backend told it"""
    placement: Placement
    sessions: SessionStore
    max_plans: int
    """plans under way at a time; more are refused"""
    version: str
    keep: Keep | None = None
    on_plan: Callable[[PlanResult], None] = lambda result: None
    on_missed: Callable[[], None] = lambda: None
    """told of every plan that missed its deadline"""
    clock: Clock = time.monotonic


class Policy:
    """Serves one policy. `warm` turns true after `warm_up` has planned once for real, and false when draining."""

    def __init__(self, parts: PolicyParts) -> None:
        self.spec = parts.spec
        self.digest = parts.digest
        self.warm = False
        self._parts = parts
        self._maker = Maker(
            parts.spec, parts.digest, parts.version, parts.placement, Normaliser(parts.spec), parts.clock
        )
        self._flights: dict[str, Flight] = {}
        self._permits: set[Permit] = set()  # of requests that are being read
        self._tasks: set[asyncio.Task[object]] = set()  # flights, and records being written

    @property
    def ready(self) -> bool:
        """Whether plans are taken."""
        return self.warm and self._parts.placement.ready

    @property
    def plans_in_flight(self) -> int:
        return len(self._flights)

    async def plan(
        self, request: PlanRequest, deadline: float | None = None, permit: Permit | None = None
    ) -> PlanResult:
        """Plans from one observation. `deadline` is absolute, in seconds of the policy's (monotonic) clock; `permit`,
        from `enter`, is given up once the plan has a place of its own.

        Raises UnknownPolicy, InvalidRequest (planner options, instruction), UnknownSession, SequenceConflict,
        Overloaded, NotReady, DeadlineExceeded and BackendError; in each case the session is as it was.
        """
        self._check_ready()
        key = request.session_id or f"new-{secrets.token_hex(8)}"
        order = self._order(request, math.inf if deadline is None else deadline, key)
        order = order if permit is None else replace(order, permit=permit)
        try:
            while True:
                flight = self._board(key, order)
                try:
                    return await self._await(flight, order.deadline)
                except DeadlineExceeded:
                    if flight.order is order or self._parts.clock() >= order.deadline:
                        raise
                finally:  # another caller's plan, ended by that one's deadline, is made again for this one
                    if flight.waiters == 0 and self._flights.get(key) is flight:
                        del self._flights[key]
        except DeadlineExceeded:
            self._parts.on_missed()
            raise

    def _board(self, key: str, order: Order) -> Flight:
        """The plan under way that an order is a retry of, or its own. Raises SequenceConflict and Overloaded."""
        flight, request = self._flights.get(key), order.request
        if flight is None or flight.task.done():
            flight = self._flights[key] = self._take_off(order)
        elif (flight.order.request.sequence, flight.order.content) != (request.sequence, order.content):
            raise SequenceConflict("sequence", "one plan at a time in a session", under_way(flight.order.request))
        if flight.order is not order:
            order.permit.release()  # the plan under way has a place of its own
        return flight

    @contextlib.contextmanager
    def enter(self, deadline: float | None) -> Iterator[Permit]:
        """Keeps a place for a request whose headers are known, while the rest is read: for PERMIT_S at most.

        Raises NotReady, DeadlineExceeded or Overloaded where it would be refused whatever it asks for; it is judged,
        and its time kept, by the smallest plan there is.
        """
        self._check_ready()
        self._check_room()
        permit = Permit(self._reserve(deadline), lambda: self._permits.discard(permit))
        self._permits.add(permit)
        expiry = asyncio.get_running_loop().call_later(PERMIT_S, permit.release)
        try:
            yield permit
        finally:
            expiry.cancel()
            permit.release()

    def _reserve(self, deadline: float | None) -> Callable[[], None]:
        """Time for the smallest plan; what gives it back. Without a deadline nobody's time is at stake."""
        device = self._parts.placement.least_loaded()
        if device is None or deadline is None:
            return lambda: None
        smallest = replace(self.spec.planner, mode="off", num_iterations=0, estimate_value=False)
        schedule = device.planner.schedule
        return partial(schedule.leave, schedule.admit(device.planner.demand("", smallest, 0), deadline))

    async def reset(self, session_id: str) -> None:
        """Forgets the session's frame memory; a plan under way in it is answered with SequenceConflict."""
        session = await self._known(session_id)
        if not await self._parts.sessions.commit(session.forget()):
            raise SequenceConflict("session_id", "a session that stands still", "a plan was committed meanwhile: retry")

    async def warm_up(self) -> None:
        """Plans for real on every device that is up, so that the first robot finds all warm and timed."""
        for device in self._parts.placement.devices:
            if device.health() is Health.UP:
                await self._maker.warm_up(device, self._warm_up_orders(device))
        self.warm = True

    def _warm_up_orders(self, device: Device) -> Iterator[Order]:
        """Black frames, a slice of samples wide."""
        samples = min(self.spec.planner.num_video_samples, device.planner.forecast.max_slice)
        slice_of = {"num_video_samples": samples, "video_elite_fraction": 1.0, "value_elite_fraction": 1.0}
        images = {c.name: np.zeros((c.height, c.width, 3), np.uint8) for c in self.spec.cameras}
        state = np.zeros(self.spec.state.dim, np.float32)
        for iterations in (1, 1, 0) if samples > 1 else (0,):
            options = {**slice_of, "num_iterations": iterations}
            yield self._order(PlanRequest(images, state, "warm up", seed=0, options=options), math.inf)

    async def drain(self, timeout_s: float | None = None) -> None:
        """Takes no more plans and waits for those under way; what is left after a while is answered with NotReady."""
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

    def _check_room(self) -> None:
        """Raises Overloaded when as many plans are under way, or being read, as may be."""
        plans = len(self._flights) + len(self._permits)
        if plans >= self._parts.max_plans:
            soonest_s = min(device.planner.schedule.soonest_s() for device in self._parts.placement.devices)
            raise Overloaded(f"{plans} plans are under way or being read, the limit", max(soonest_s, MIN_RETRY_S))

    def _order(self, request: PlanRequest, deadline: float, robot: str = "") -> Order:
        if request.policy not in (None, self.spec.name):
            raise UnknownPolicy("policy", self.spec.name, repr(request.policy))
        config = merge_options(self.spec.planner, self.spec.bounds, dict(request.options))
        inputs = digests.of_inputs(request)
        seed = secrets.randbits(63) if request.seed is None else request.seed
        content = digests.of_content(request, inputs)
        progress = Progress(self._parts.clock)
        return Order(request, config, seed, inputs, content, deadline, robot, progress=progress)

    def _take_off(self, order: Order) -> Flight:
        self._permits.discard(order.permit)
        self._check_room()
        return Flight(order, self._in_background(self._fly(order)))

    def _in_background(self, work: Coroutine[object, object, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._landed)
        return task

    def _landed(self, task: asyncio.Task[T]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever still waits is told; an error nobody waits for is not an accident

    async def _await(self, flight: Flight, deadline: float) -> PlanResult:
        flight.waiters += 1
        try:
            async with asyncio.timeout(None if deadline == math.inf else deadline - self._parts.clock()):
                result = await asyncio.shield(flight.task)
            if self._parts.clock() > deadline:
                raise TimeoutError  # the loop was held up, and the alarm with it
            return result
        except TimeoutError:
            raise flight.missed(deadline, self._parts.clock()) from None
        except DeadlineExceeded as error:
            raise flight.missed(deadline, self._parts.clock(), error.message) from None
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if caller is not None and caller.cancelling():
                raise
            raise NotReady("the service stopped before the plan was made") from None
        finally:
            flight.waiters -= 1
            if flight.waiters == 0:
                flight.task.cancel()  # nobody is left to answer

    async def _fly(self, order: Order) -> PlanResult:
        session = await self._open(order.request)
        if (answer := earlier_answer(session, order)) is not None:
            return answer
        result, made = await self._maker.make(order, session)
        if self._parts.clock() > order.deadline:
            raise DeadlineExceeded("the plan was ready too late")
        # pictures are for looking at and large: a retry gets the actions without them
        kept = replace(result, imagined={}) if result.imagined else result
        answered = Answered(order.request.sequence, order.content, kept)
        last = LastPlan(order.inputs["instruction"], order.request.control_step, made.plan.video, made.plan.value)
        after = replace(session, memory=made.memory, answered=answered, last=last, last_sequence=order.request.sequence)
        if not await self._parts.sessions.commit(after):
            raise SequenceConflict("session_id", "a session that stands still while it plans", _MEANWHILE)
        if self._parts.keep is not None:
            self._in_background(self._keep(self._parts.keep, order.request, session, result))
        self._parts.on_plan(result)
        return result

    async def _keep(self, keep: Keep, request: PlanRequest, session: Session, result: PlanResult) -> None:
        """No disk delays a robot, and none costs it its answer."""
        try:
            await keep(request, session, result)
        except Exception:
            log.exception("the plan of sequence %d could not be recorded", request.sequence)

    async def _open(self, request: PlanRequest) -> Session:
        if request.session_id is not None:
            return await self._known(request.session_id)
        await self._parts.sessions.ensure_room()
        return Session.fresh(self.digest)

    async def _known(self, session_id: str) -> Session:
        session = await self._parts.sessions.load(session_id)
        if session is None:
            raise UnknownSession("session_id", "a session of this service (it expires when idle)", repr(session_id))
        return session if session.policy_digest == self.digest else replace(session.forget(), policy_digest=self.digest)
