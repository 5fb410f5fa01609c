"""One plan on a device: from an order and the session it belongs to, to actions in the policy's units and a receipt.

Called by the policy, which decides whether there is a plan to make and what becomes of it. Commits nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from wavserve.core.errors import ModelDown
from wavserve.core.normalise import Normaliser
from wavserve.core.spec import PlannerConfig, PolicySpec
from wavserve.core.types import Array, Clock, DeadlineResult, Picture, Plan, PlanContext, PlanResult, Receipt, Stop
from wavserve.planning.device import Device
from wavserve.planning.gather import together
from wavserve.planning.model_calls import Job
from wavserve.planning.perception import Perception
from wavserve.planning.proposal import NamedNoise, Proposal
from wavserve.policy import digests
from wavserve.policy.imagined import imagine_frames
from wavserve.policy.inflight import Order
from wavserve.policy.placement import Placement
from wavserve.policy.sessions import FrameMemory, Session
from wavserve.policy.warm_start import continued
from wavserve.scheduling.schedule import Ticket

MAX_PLACEMENTS = 3
"""How often a plan is made when the models under it go down."""


@dataclass(frozen=True, slots=True)
class Made:
    """A plan and everything a robot or a session is told of it."""

    actions: Array
    """`[T, A]`, in the policy's units"""
    plan: Plan
    memory: FrameMemory
    """with this observation in it"""
    warm_start: bool
    imagined: Mapping[str, tuple[Picture, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Maker:
    """Makes plans of one policy."""

    spec: PolicySpec
    digest: str
    version: str
    placement: Placement
    normaliser: Normaliser
    clock: Clock

    async def make(self, order: Order, session: Session) -> tuple[PlanResult, Made]:
        """One plan. When its models go down it is made again from the start: same seed, same plan.

        Raises Overloaded when it would be late (once admitted it is not asked again), NotReady and BackendError.
        """
        admitted = False
        with order.progress.measure("total"):
            order.permit.release()  # and enters at once
            for _ in range(MAX_PLACEMENTS):
                async with self.placement.place() as device:
                    try:
                        with self._entered(device, order, admitted) as ticket:
                            admitted = True
                            made = await self._make_on(device, order, session, ticket)
                            break
                    except ModelDown as error:
                        gone = error
            else:
                raise gone
        request, receipt = order.request, self._receipt(order, made)
        result = PlanResult(session.id, request.sequence, request.control_step, made.actions, receipt, made.imagined)
        return result, made

    async def warm_up(self, device: Device, orders: Iterable[Order]) -> None:
        """Makes plans that nobody is told of, outside the device's schedule."""
        for order in orders:
            await self._make_on(device, order, Session.fresh(self.digest), Ticket())

    async def _make_on(self, device: Device, order: Order, session: Session, ticket: Ticket) -> Made:
        """One plan on a device, under a ticket."""
        request, planner, chunks = order.request, device.planner, order.request.imagine_chunks
        memory, context = await self._perceive(device.perception, order, session, ticket)
        start = self._start(order, session, planner.standard)
        noise = NamedNoise((order.seed, request.sequence))
        job = Job(context, order.config, noise, start, chunks, ticket, order.progress)
        plan = await planner.plan(job)
        actions = self.normaliser.actions(plan.actions, request.state)
        imagined = await imagine_frames(planner, device.perception, job, plan, chunks) if chunks else {}
        return Made(actions, plan, memory, start is not None, imagined)

    @contextmanager
    def _entered(self, device: Device, order: Order, admitted: bool) -> Iterator[Ticket]:
        """The plan's place in the device's schedule, for as long as it is under way there."""
        schedule = device.planner.schedule
        demand = device.planner.demand(order.robot, order.config, order.request.imagine_chunks)
        ticket = (schedule.enter if admitted else schedule.admit)(demand, order.deadline)
        try:
            yield ticket
            schedule.ended(ticket)
        finally:
            schedule.leave(ticket)

    def _start(self, order: Order, session: Session, standard: Callable[[PlannerConfig], Proposal]) -> Proposal | None:
        """Where a plan begins that may continue the session's last one; None: as every plan."""
        if not order.config.warm_start or session.last is None:
            return None
        instruction = order.inputs["instruction"]
        return continued(session.last, order.request, instruction, standard(order.config), self.spec.chunk)

    async def _perceive(
        self, perception: Perception, order: Order, session: Session, ticket: Ticket
    ) -> tuple[FrameMemory, PlanContext]:
        request, latent, threshold = order.request, self.spec.latent, self.spec.memory_threshold
        with order.progress.measure("encode"):
            text, latents = await together(
                perception.read(request.instruction, ticket), perception.see(request.images, ticket)
            )
        if session.memory is None:
            memory = FrameMemory.begin(latents, latent.num_memory_frames, threshold)
        else:
            memory = session.memory.observe(latents, request.executed_steps, threshold)
        return memory, PlanContext(memory.frames, text, self.normaliser.history(request.state))

    def _receipt(self, order: Order, made: Made) -> Receipt:
        plan = made.plan
        deadline = DeadlineResult.MET_DEGRADED if plan.stopped is Stop.OUT_OF_TIME else DeadlineResult.MET
        return Receipt(
            policy=self.spec.name,
            policy_digest=self.digest,
            untrained=self.spec.untrained,
            seed=order.seed,
            sequence=order.request.sequence,
            config=order.config,
            iterations_done=len(plan.iterations),
            stopped=plan.stopped,
            warm_start=made.warm_start,
            deadline=deadline if order.bounded else DeadlineResult.NONE,
            slack_s=order.deadline - self.clock() if order.bounded else None,
            iterations=plan.iterations,
            stage_s=dict(order.progress.seconds),
            value_estimate=plan.value_estimate,
            digests={**order.inputs, "memory": digests.of_memory(made.memory)},
            version=self.version,
        )
