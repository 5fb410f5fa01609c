"""One policy for many robots: one observation in, one chunk of actions out.

`plan` loads the session, executes the plan, commits the session and answers. The commit is the one judge: a plan
that is committed is answered, and one that is refused, cancelled or late leaves the session as it was. Knows no status
codes and no wire format.
"""

from __future__ import annotations

import contextlib
import logging
import math
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import replace

from wavserve.core.errors import (
    DeadlineExceeded,
    NotReady,
    OutcomeUnknown,
    SequenceConflict,
    UnknownPolicy,
    UnknownSession,
    shown,
)
from wavserve.core.messages import ActionChunk, EncodedImage
from wavserve.core.normalise import Normaliser
from wavserve.core.options import merge_options
from wavserve.core.tracing import span
from wavserve.core.types import PlanRequest
from wavserve.planning.device import Device
from wavserve.planning.timings import Progress
from wavserve.policy import digests
from wavserve.policy.commits import advanced, commit, uninterrupted
from wavserve.policy.epochs import Epochs, OpenedSession, check_epoch, next_epoch
from wavserve.policy.execution import PlanExecutor
from wavserve.policy.gate import Gate
from wavserve.policy.inflight import InFlightPlan, ResolvedRequest, answer_of_retry
from wavserve.policy.left_over import LeftOver
from wavserve.policy.on_demand import FramesOnDemand
from wavserve.policy.parts import Keep, PolicyParts
from wavserve.policy.reservations import Reservations
from wavserve.policy.running import RunningPlans
from wavserve.policy.sessions import CommitResult, Session
from wavserve.policy.unusual import UsualStates
from wavserve.policy.warm_up import WarmUp, warm_up_requests
from wavserve.scheduling.permits import Permit
from wavserve.system.vital_tasks import VitalTask

log = logging.getLogger(__name__)

_SESSION_CHANGED = "it was reset or another plan was committed in the meantime"
_UNKNOWN = "the session store did not say whether {} was stored: send the same request again"


class Policy:
    """Serves one policy. `warm` turns true after `warm_up` has planned once for real, and false when draining."""

    def __init__(self, parts: PolicyParts) -> None:
        self.spec = parts.spec
        self.digest = parts.digest
        self.golden_digest = "" if parts.golden is None else parts.golden.golden.digest
        self.warm = False
        self._parts = parts
        self._executor = PlanExecutor(
            parts.spec,
            parts.digest,
            parts.version,
            parts.placement,
            Normaliser(parts.spec),
            Gate(parts.spec, parts.on_broken),
            UsualStates(parts.spec.state, parts.on_unusual),
        )
        self._warm_up = WarmUp(parts.placement, self._make_warm_up_plans)
        self._epochs = Epochs(parts.sessions, parts.digest, parts.unix_clock)
        self._keeping_warm: VitalTask | None = None
        self._reservations = Reservations(parts, lambda: self.plans_in_flight)
        self._running = RunningPlans(self._run, self._reservations.take_over, parts.on_plan, parts.clock)
        self._on_demand = FramesOnDemand(parts.spec, parts.placement, parts.sessions, self._running.activity)

    @property
    def ready(self) -> bool:
        """Whether plans are taken."""
        return self.warm and self._parts.placement.ready

    @property
    def fault(self) -> str | None:
        """What is wrong with the plans of a device; None: nothing is known."""
        return self._parts.placement.fault

    @property
    def plans_in_flight(self) -> int:
        return len(self._running)

    async def plan(
        self,
        request: PlanRequest,
        deadline: float | None = None,
        permit: Permit | None = None,
        progress: Progress | None = None,
    ) -> ActionChunk:
        """Plans from one observation. `deadline` is absolute, in seconds of the policy's (monotonic) clock; `permit`,
        from `reserve`, is released once the plan has a place of its own. `progress` takes what is spent on the plan.

        Raises UnknownPolicy, InvalidRequest (planner options, instruction), UnknownSession, SequenceConflict,
        Overloaded, NotReady, DeadlineExceeded, UnsafeChunk and BackendError; in each case the session is as it was.
        Raises OutcomeUnknown when that is not known.
        """
        self._check_ready()
        key = request.session_id or f"new-{secrets.token_hex(8)}"
        resolved = self._resolve(request, math.inf if deadline is None else deadline, key, permit or Permit())
        if progress is not None:
            resolved = replace(resolved, progress=progress)
        with self._reservations.counting_errors(resolved.progress.seconds):
            return await self._running.answer(key, resolved)

    @contextlib.contextmanager
    def reserve(self, deadline: float | None, num_bytes: int = 0) -> Iterator[Permit]:
        """Keeps a place for a request whose headers are known, while its body is read. `num_bytes`: the size of the
        body as far as it is known; the permit takes the bytes when they arrive, and holds them until the block ends.

        Raises NotReady, DeadlineExceeded or Overloaded where every request would be refused: the smallest plan is
        judged, and its time is kept.
        """
        self._check_ready()
        with self._reservations.reserve(deadline, num_bytes) as permit:
            yield permit

    async def reset(self, session_id: str) -> None:
        """Forgets the session's frame memory; a plan that runs in it is answered with SequenceConflict.

        A robot's stream that uses the session ends with StaleEpoch.
        """
        session = next_epoch(await self._load_session(session_id))
        match await uninterrupted(self._commit(session.forget(), math.inf)):
            case CommitResult.UNKNOWN:
                raise OutcomeUnknown(_UNKNOWN.format("the reset"))
            case CommitResult.CHANGED:
                actual = "another plan was committed in the meantime; retry"
                raise SequenceConflict("session_id", "an unchanged session", actual)

    async def end_session(self, session_id: str) -> None:
        """Gives a session's place back. Does nothing for an unknown session. A plan that runs in it is not answered."""
        await self._parts.sessions.end(session_id)

    async def open_session(self, robot_id: str, resume: str | None, silent_s: float | None) -> OpenedSession:
        """Opens the session of a robot's stream in a new epoch: `resume` if it can be resumed, otherwise a fresh one.

        `silent_s` and errors as in `Epochs.open`; NotReady as well.
        """
        self._check_ready()
        opened = await self._epochs.open(robot_id, resume, silent_s)
        await self._running.settled(opened.session_id)
        return opened

    async def reset_epoch(self, session_id: str, epoch: int) -> OpenedSession:
        """Forgets the session's memory and begins its next epoch. Errors as in `Epochs.reset`; NotReady as well."""
        self._check_ready()
        opened = await self._epochs.reset(session_id, epoch)
        await self._running.settled(session_id)
        return opened

    async def imagine(self, session_id: str, instruction: str) -> Mapping[str, tuple[EncodedImage, ...]]:
        """Imagined frames of the session's last plan, for an onlooker: `FramesOnDemand.of`. Every plan comes first."""
        self._check_ready()
        return await self._on_demand.of(session_id, instruction)

    async def warm_up(self) -> None:
        """Plans for real on every device that is up, so that the first robot finds all warm and timed. A device whose
        plan is not the golden one gets no plans.

        From then on until `drain` it does so on each device that comes up later. Raises what such a plan raises when it
        fails on every device.
        """
        await self._warm_up.start()
        self.warm = True
        if self._keeping_warm is None:
            self._keeping_warm = VitalTask(self._warm_up.keep(), "the warm-up of devices", self._parts.on_death)

    def skip_warm_up(self) -> None:
        """Takes plans on cold models, for a single plan that no robot waits for."""
        for device in self._parts.placement.devices:
            device.warmed = device.generation()
        self.warm = True

    async def drain(self, timeout_s: float | None = None) -> None:
        """Takes no more plans and waits for those that run. The rest is answered with NotReady after `timeout_s`; those
        that have no working models, at once."""
        self.warm = False
        if self._keeping_warm is not None:
            self._keeping_warm.cancel()
        self._parts.placement.drain()
        self._on_demand.drain()
        await self._running.drain(timeout_s)

    def _check_ready(self) -> None:
        if self.ready:
            return
        if self.warm:
            raise NotReady(self.fault or "the models are being repaired")
        draining = self._parts.placement.draining
        raise NotReady("the service is draining: use another server" if draining else "the service is starting")

    def _resolve(
        self, request: PlanRequest, deadline: float, robot: str = "", permit: Permit | None = None
    ) -> ResolvedRequest:
        if request.policy not in (None, self.spec.name):
            raise UnknownPolicy("policy", self.spec.name, shown(request.policy))
        config = merge_options(self.spec.planner, self.spec.bounds, dict(request.options))
        left_over = LeftOver.of(request, self.spec, self._executor.normaliser)
        inputs = digests.input_digests(request)
        seed = secrets.randbits(53) if request.seed is None else request.seed
        content, progress = digests.content_digest(request, inputs), Progress(self._parts.clock)
        place = permit or Permit()
        return ResolvedRequest(request, config, seed, left_over, inputs, content, deadline, robot, place, progress)

    async def _make_warm_up_plans(self, device: Device) -> str | None:
        """Warms a device. Returns how its golden plan differs; None: not more than it may, or there is none."""
        requests = [*warm_up_requests(self.spec, device.planner.forecast.max_slice)]
        golden = self._parts.golden
        if golden is not None:
            requests.append(golden.request)  # the last: then it takes the paths that robots' plans take
        plans = await self._executor.warm_up(device, [self._resolve(request, math.inf) for request in requests])
        return None if golden is None else golden.difference(plans[-1])

    async def _run(self, in_flight: InFlightPlan) -> ActionChunk:
        resolved = in_flight.resolved
        with span("session.load"):
            session = await self._open_session(resolved.request)
        check_epoch(session, resolved.request.epoch)
        if (answer := answer_of_retry(session, resolved)) is not None:
            in_flight.counted = True
            return answer
        await self._parts.sessions.ensure_writable()
        chunk, outcome = await self._executor.execute(resolved, session)
        in_flight.committing = True  # from now on nobody cancels this task
        match await self._commit(advanced(session, resolved, chunk, outcome), resolved.deadline):
            case CommitResult.COMMITTED:
                if self._parts.keep is not None:
                    self._running.in_background(self._keep(self._parts.keep, resolved.request, session, chunk))
                return chunk
            case CommitResult.TOO_LATE:
                raise DeadlineExceeded("the plan was ready too late")
            case CommitResult.UNKNOWN:
                raise OutcomeUnknown(_UNKNOWN.format("the plan"))
            case CommitResult.CHANGED:
                return await self._committed_elsewhere(session.id, in_flight)

    async def _committed_elsewhere(self, session_id: str, in_flight: InFlightPlan) -> ActionChunk:
        """The answer when the same request was committed meanwhile: by another gateway, or by an earlier attempt.

        Raises StaleEpoch when another epoch has begun, SequenceConflict when the session was changed by anything else,
        UnknownSession when it has expired.
        """
        session = await self._load_session(session_id)
        check_epoch(session, in_flight.resolved.request.epoch)
        answer = answer_of_retry(session, in_flight.resolved)
        if answer is None:
            raise SequenceConflict("session_id", "an unchanged session", _SESSION_CHANGED)
        in_flight.counted = True
        return answer

    async def _commit(self, session: Session, deadline: float) -> CommitResult:
        with span("session.commit"):
            return await commit(self._parts.sessions, session, deadline, self._parts.unix_clock)

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
