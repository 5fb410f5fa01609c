"""The door both edges call: one observation in, one chunk of actions out.

`plan` takes an admission permit, looks into the session, plans, denormalises, remembers and answers. A plan that is
refused, cancelled or late leaves the session as it was. Below it lie sessions, normalisation and the planner; it knows
no status codes and no wire format.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from wavserve import digests
from wavserve.calls import Job
from wavserve.errors import (
    DeadlineExceeded,
    ModelDown,
    NotReady,
    Overloaded,
    SequenceConflict,
    UnknownPolicy,
    UnknownSession,
)
from wavserve.normalise import Normaliser
from wavserve.options import merge_options
from wavserve.orders import Flight, Order, earlier_answer, under_way
from wavserve.pace import Clock, StageTimes
from wavserve.perception import Perception
from wavserve.pictures import imagine_frames
from wavserve.placement import Device, Health, Placement
from wavserve.proposal import NamedNoise
from wavserve.sessions import Answered, FrameMemory, Session, SessionStore
from wavserve.spec import PolicySpec
from wavserve.types import Array, DeadlineResult, Plan, PlanContext, PlanRequest, PlanResult, Receipt

T = TypeVar("T")

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


MAX_PLACEMENTS = 3
"""How often a plan is made when the models under it go down."""


class Policy:
    """Serves one policy. `warm` turns true after `warm_up` has planned once for real, and false when draining."""

    def __init__(self, parts: PolicyParts) -> None:
        self.spec = parts.spec
        self.digest = parts.digest
        self.warm = False
        self._parts = parts
        self._normaliser = Normaliser(parts.spec)
        self._flights: dict[str, Flight] = {}
        self._tasks: set[asyncio.Task[object]] = set()  # flights, and records being written

    @property
    def ready(self) -> bool:
        """Whether plans are taken."""
        return self.warm and self._parts.placement.ready

    @property
    def plans_in_flight(self) -> int:
        return len(self._flights)

    async def plan(self, request: PlanRequest, deadline: float | None = None) -> PlanResult:
        """Plans from one observation. `deadline` is absolute, in seconds of the policy's (monotonic) clock.

        Raises UnknownPolicy, InvalidRequest (planner options, instruction), UnknownSession, SequenceConflict,
        Overloaded, NotReady, DeadlineExceeded and BackendError; in each case the session is as it was.
        """
        if not self.ready:
            raise NotReady("the models are being repaired" if self.warm else "the service is starting or draining")
        order = self._order(request, math.inf if deadline is None else deadline)
        key = request.session_id or f"new-{secrets.token_hex(8)}"
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = self._take_off(order)
        elif (flight.order.request.sequence, flight.order.content) != (request.sequence, order.content):
            raise SequenceConflict("sequence", "one plan at a time in a session", under_way(flight.order.request))
        try:
            return await self._await(flight, order.deadline)
        finally:
            if flight.waiters == 0 and self._flights.get(key) is flight:
                del self._flights[key]

    async def reset(self, session_id: str) -> None:
        """Forgets the session's frame memory; a plan under way in it is answered with SequenceConflict."""
        session = await self._known(session_id)
        if not await self._parts.sessions.commit(session.forget()):
            raise SequenceConflict("session_id", "a session that stands still", "a plan was committed meanwhile: retry")

    async def warm_up(self) -> None:
        """Plans for real on every device that is up, so that the first robot finds all warm and timed."""
        for device in self._parts.placement.devices:
            if device.health() is Health.UP:
                await self._warm_up(device)
        self.warm = True

    async def _warm_up(self, device: Device) -> None:
        """Black frames, a slice of samples wide."""
        samples = min(self.spec.planner.num_video_samples, device.planner.slices.size)
        slice_of = {"num_video_samples": samples, "video_elite_fraction": 1.0, "value_elite_fraction": 1.0}
        images = {c.name: np.zeros((c.height, c.width, 3), np.uint8) for c in self.spec.cameras}
        state = np.zeros(self.spec.state.dim, np.float32)
        for iterations in (1, 1, 0) if samples > 1 else (0,):
            options = {**slice_of, "num_iterations": iterations}
            request = PlanRequest(images, state, "warm up", seed=0, options=options)
            order = self._order(request, math.inf)
            with order.stages.measure("total"):
                await self._make_on(device, order, Session.fresh(self.digest))

    async def drain(self, timeout_s: float | None = None) -> None:
        """Takes no more plans and waits for those under way; what is left after a while is answered with NotReady."""
        self.warm = False
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=timeout_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _order(self, request: PlanRequest, deadline: float) -> Order:
        if request.policy not in (None, self.spec.name):
            raise UnknownPolicy("policy", self.spec.name, repr(request.policy))
        config = merge_options(self.spec.planner, self.spec.bounds, dict(request.options))
        inputs = digests.of_inputs(request)
        seed = secrets.randbits(63) if request.seed is None else request.seed
        content = digests.of_content(request, inputs)
        return Order(request, config, seed, inputs, content, deadline, StageTimes(self._parts.clock))

    def _take_off(self, order: Order) -> Flight:
        if len(self._flights) >= self._parts.max_plans:
            devices = self._parts.placement.devices
            wait_s = devices[0].planner.pace.plan_s(order.config) * len(self._flights) / len(devices)
            raise Overloaded(f"{len(self._flights)} plans are under way, the limit", max(wait_s, 0.05))
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
                return await asyncio.shield(flight.task)
        except (TimeoutError, DeadlineExceeded):
            self._parts.on_missed()
            raise DeadlineExceeded("the deadline passed before a plan could be made") from None
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
        result, plan, memory = await self._make(order, session)
        if self._parts.clock() > order.deadline:
            raise DeadlineExceeded("the plan was ready too late")
        # pictures are for looking at and large: a retry gets the actions without them
        kept = replace(result, imagined={}) if result.imagined else result
        answered = Answered(order.request.sequence, order.content, kept, plan.video, plan.value)
        after = replace(session, memory=memory, answered=answered, last_sequence=order.request.sequence)
        if not await self._parts.sessions.commit(after):
            raise SequenceConflict("session_id", "a session that stands still while it plans", _MEANWHILE)
        if self._parts.keep is not None:
            self._in_background(self._parts.keep(order.request, session, result))  # no disk delays a robot
        self._parts.on_plan(result)
        return result

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

    async def _make(self, order: Order, session: Session) -> tuple[PlanResult, Plan, FrameMemory]:
        """One plan in a session; commits nothing. When its models go down it is made again from the start: same seed,
        same plan."""
        with order.stages.measure("total"):
            for _ in range(MAX_PLACEMENTS):
                async with self._parts.placement.place() as device:
                    try:
                        made = await self._make_on(device, order, session)
                        break
                    except ModelDown as error:
                        gone = error
            else:
                raise gone
        actions, plan, memory, imagined = made
        request, receipt = order.request, self._receipt(order, plan, memory)
        result = PlanResult(session.id, request.sequence, request.control_step, actions, receipt, imagined)
        return result, plan, memory

    async def _make_on(
        self, device: Device, order: Order, session: Session
    ) -> tuple[Array, Plan, FrameMemory, dict[str, NDArray[np.uint8]]]:
        """Actions in the policy's units, the plan and memory behind them, and imagined frames where asked for."""
        request, planner = order.request, device.planner
        memory, context = await self._perceive(device.perception, order, session)
        reserve_s = request.imagine_chunks * planner.pace.picture_s(order.config)
        noise = NamedNoise((order.seed, request.sequence))
        job = Job(context, order.config, noise, order.deadline, reserve_s, order.stages)
        plan = await planner.plan(job)
        actions = self._normaliser.actions(plan.actions, request.state)
        chunks = request.imagine_chunks
        imagined = await imagine_frames(planner, device.perception, job, plan, chunks) if chunks else {}
        return actions, plan, memory, imagined

    async def _perceive(
        self, perception: Perception, order: Order, session: Session
    ) -> tuple[FrameMemory, PlanContext]:
        request, latent, threshold = order.request, self.spec.latent, self.spec.memory_threshold
        with order.stages.measure("encode"):
            text, latents = await asyncio.gather(
                perception.read(request.instruction, order.deadline),
                perception.see(request.images, order.deadline),
            )
        if session.memory is None:
            memory = FrameMemory.begin(latents, latent.num_memory_frames, threshold)
        else:
            memory = session.memory.observe(latents, request.executed_steps, threshold)
        return memory, PlanContext(memory.frames, text, self._normaliser.history(request.state))

    def _receipt(self, order: Order, plan: Plan, memory: FrameMemory) -> Receipt:
        bounded = order.deadline < math.inf
        short = len(plan.iterations) < order.config.num_iterations
        deadline = DeadlineResult.MET_DEGRADED if short else DeadlineResult.MET
        return Receipt(
            policy=self.spec.name,
            policy_digest=self.digest,
            untrained=self.spec.untrained,
            seed=order.seed,
            sequence=order.request.sequence,
            config=order.config,
            iterations_done=len(plan.iterations),
            deadline=deadline if bounded else DeadlineResult.NONE,
            slack_s=order.deadline - self._parts.clock() if bounded else None,
            iterations=plan.iterations,
            stage_s=dict(order.stages.seconds),
            value_estimate=plan.value_estimate,
            digests={**order.inputs, "memory": digests.of_memory(memory)},
            version=self._parts.version,
        )
