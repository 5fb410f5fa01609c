"""One plan on a device: from a resolved request and its session to actions in the policy's units and a receipt.

The policy decides whether a plan is made, and commits the session. This module does neither.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from wavserve.core.errors import CallStuck, ModelDown
from wavserve.core.messages import ActionChunk, EncodedImage
from wavserve.core.normalise import Normaliser, rewards_and_returns
from wavserve.core.spec import PlannerConfig, PolicySpec
from wavserve.core.tracing import span
from wavserve.core.types import Array, DeadlineResult, Plan, PlanRequest, Receipt, TextEmbedding
from wavserve.planning.device import Device
from wavserve.planning.gather import gather
from wavserve.planning.model_calls import PlanJob
from wavserve.planning.perception import Perception
from wavserve.planning.proposal import NamedNoise, Proposal
from wavserve.policy import digests
from wavserve.policy.gate import Gate
from wavserve.policy.imagined import imagine_frames
from wavserve.policy.inflight import ResolvedRequest
from wavserve.policy.placement import Placement
from wavserve.policy.sessions import FrameMemory, Session
from wavserve.policy.unusual import UsualStates
from wavserve.policy.warm_start import continued
from wavserve.scheduling.ledger import Ticket

MAX_PLACEMENTS = 3
"""Attempts of one plan when models fail."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A plan with everything that goes to the robot or into the session."""

    actions: Array
    """`[T, A]`, in the policy's units, before the gate"""
    plan: Plan
    memory: FrameMemory
    """with this observation in it"""
    memory_digest: str
    warm_start: bool
    imagined: Mapping[str, tuple[EncodedImage, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PlanExecutor:
    """Executes plans of one policy."""

    spec: PolicySpec
    digest: str
    version: str
    placement: Placement
    normaliser: Normaliser
    gate: Gate
    usual: UsualStates

    async def execute(self, resolved: ResolvedRequest, session: Session) -> tuple[ActionChunk, Outcome]:
        """One plan. When its models go down it starts again from the beginning: same seed, same plan. When one of them
        stands still it does so only on another device that is up, because a repair may take long.

        Raises Overloaded or DeadlineExceeded when it would be late (an admitted plan is not judged again),
        InvalidRequest when the instruction has too many tokens, UnsafeChunk, NotReady and BackendError.
        """
        with span("plan") as planning, resolved.progress.measure("total"):
            resolved.permit.release()  # the time that was held for it; `_registered` admits the plan itself
            for _ in range(MAX_PLACEMENTS):
                async with self.placement.place(partial(self._enter, resolved)) as (device, ticket):
                    resolved.progress.admitted, resolved.progress.device = True, device.name
                    planning.set({"wavserve.device": device.name})
                    try:
                        with self._registered(device, ticket):
                            outcome = await self._execute_on(device, resolved, session, ticket)
                            break
                    except (ModelDown, CallStuck) as error:
                        if isinstance(error, CallStuck) and not self.placement.choices():
                            raise
                        failure = error
            else:
                raise failure
        receipt = self._receipt(resolved, outcome)
        actions, cut = self.gate.passed(outcome.actions, session.last, resolved.request)
        chunk = action_chunk(self.spec, session.id, resolved.request, actions, receipt, outcome.imagined)
        answer = replace(
            chunk,
            cut=cut,
            fresh_memory=session.memory is None,
            warnings=(*chunk.warnings, *self.usual.warnings(resolved.request.state)),
            frozen_prefix_steps=min(resolved.left_over.num_frozen, len(actions)),
        )
        return answer, outcome

    async def warm_up(self, device: Device, requests: Iterable[ResolvedRequest]) -> list[Array]:
        """Executes plans without a session, outside the device's schedule and without the gate. Returns the actions
        `[T, A]` of each.

        Each instruction is encoded on the device, whoever else has encoded it.
        """
        requests, fresh = list(requests), Session.fresh(self.digest)
        for instruction in sorted({each.request.instruction for each in requests}):
            await device.perception.encode_anew(instruction, Ticket())
        return [
            (await self._execute_on(device, resolved, fresh, Ticket(alone=resolved.config.fixed_shapes))).actions
            for resolved in requests
        ]

    async def _execute_on(self, device: Device, resolved: ResolvedRequest, session: Session, ticket: Ticket) -> Outcome:
        """One plan on a device, under a ticket."""
        request, planner = resolved.request, device.planner
        text, memory = await self._perceive(device.perception, resolved, session, ticket)
        # a thread hashes the memory while the plan is made: for many cameras this takes a fraction of a millisecond
        hashing = asyncio.get_running_loop().run_in_executor(None, digests.memory_digest, memory)
        start = self._start(resolved, session, planner.standard)
        job = PlanJob(
            memory=memory.frames,
            text=text,
            history=self.normaliser.history(request.state),
            config=resolved.config,
            noise=NamedNoise((resolved.seed, request.sequence)),
            start=start,
            imagine_chunks=request.imagine_chunks,
            continuation=resolved.left_over.continuation,
            ticket=ticket,
            progress=resolved.progress,
        )
        plan = await planner.plan(job)
        actions = resolved.left_over.continued(plan.actions, self.normaliser, request.state)
        imagined = await imagine_frames(planner.calls, device.perception, job, plan.video) if job.imagine_chunks else {}
        return Outcome(actions, plan, memory, await hashing, start is not None, imagined)

    def _enter(self, resolved: ResolvedRequest, device: Device) -> Ticket:
        """Registers the plan in the device's schedule. Raises Overloaded or DeadlineExceeded when it would be late."""
        admission = device.planner.admission
        imagine_chunks, guided = resolved.request.imagine_chunks, resolved.left_over.guided
        demand = device.planner.demand(resolved.robot, resolved.config, imagine_chunks, guided)
        enter = admission.register if resolved.progress.admitted else admission.admit
        with span("admission"):
            return enter(demand, resolved.deadline)

    @contextmanager
    def _registered(self, device: Device, ticket: Ticket) -> Iterator[None]:
        """Keeps the plan's place in the device's schedule for as long as it runs there."""
        try:
            yield
            device.planner.admission.learn(ticket)
        finally:
            device.planner.admission.leave(ticket)

    def _start(
        self, resolved: ResolvedRequest, session: Session, standard: Callable[[PlannerConfig], Proposal]
    ) -> Proposal | None:
        """Where planning begins when it continues the session's last plan; None: at the standard Gaussians."""
        if not resolved.config.warm_start or session.last is None:
            return None
        instruction = resolved.inputs["instruction"]
        return continued(session.last, resolved.request, instruction, standard(resolved.config), self.spec.chunk)

    async def _perceive(
        self, perception: Perception, resolved: ResolvedRequest, session: Session, ticket: Ticket
    ) -> tuple[TextEmbedding, FrameMemory]:
        """The encoded instruction, and the session's frame memory with this observation in it."""
        request, latent, threshold = resolved.request, self.spec.latent, self.spec.memory_threshold
        with span("encode"), resolved.progress.measure("encode"):
            text, latents = await gather(
                perception.encode_text(request.instruction, ticket), perception.encode_images(request.images, ticket)
            )
        if session.memory is None:
            return text, FrameMemory.begin(latents, latent.num_memory_frames, threshold)
        return text, session.memory.observe(latents, request.executed_steps, threshold)

    def _expected_return(self, plan: Plan) -> float | None:
        if plan.estimate is None or self.spec.value_norm is None:
            return None
        values = plan.estimate.values
        returns = rewards_and_returns(np.stack([np.zeros_like(values), values], axis=-1), self.spec.value_norm)[:, 1]
        return float(returns.mean())

    def _receipt(self, resolved: ResolvedRequest, outcome: Outcome) -> Receipt:
        plan, left_over = outcome.plan, resolved.left_over
        return Receipt(
            policy=self.spec.name,
            policy_digest=self.digest,
            untrained=self.spec.untrained,
            seed=resolved.seed,
            sequence=resolved.request.sequence,
            config=resolved.config,
            iterations_done=len(plan.iterations),
            stopped=plan.stopped,
            warm_start=outcome.warm_start,
            deadline=DeadlineResult.NONE,  # `answer_to` judges, once the plan is committed
            slack_s=None,
            iterations=plan.iterations,
            stage_s=dict(resolved.progress.seconds),
            value_estimate=None if plan.estimate is None else plan.estimate.score,
            expected_return=self._expected_return(plan),
            digests={**resolved.inputs, "memory": outcome.memory_digest},
            version=self.version,
            rtc=None if left_over.settings.mode == "off" else left_over.settings,
            seam_jump=left_over.seam_jump(outcome.actions, self.spec),
        )


def action_chunk(
    spec: PolicySpec,
    session_id: str,
    request: PlanRequest,
    actions: Array,
    receipt: Receipt,
    imagined: Mapping[str, tuple[EncodedImage, ...]] | None = None,
) -> ActionChunk:
    """A policy's answer to a request; the edge adds its clock."""
    content = f"{session_id}/{request.sequence}/{receipt.seed}/".encode() + actions.tobytes()
    return ActionChunk(
        session_id=session_id,
        epoch=request.epoch or 0,
        sequence=request.sequence,
        first_control_step=request.control_step,
        dt_ns=round(1e9 / spec.control_hz),
        actions=actions,
        valid_until_step=request.control_step + len(actions),
        receipt=receipt,
        imagined=imagined or {},
        # by content: a retry has the same id, and the id does not reveal the session's
        chunk_id=hashlib.sha256(content).hexdigest()[:16],
        warnings=("untrained weights: never run these actions on a robot",) if receipt.untrained else (),
    )
