"""What both edges share: admit a request, check it, decode its images, ask the policy, complete the answer.

The edges only read requests and write answers. Everything on which they must agree happens here. Knows no status code
and no wire format.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field, fields, replace
from functools import partial
from time import monotonic, monotonic_ns
from typing import Protocol, TypeVar

from wavserve.core.errors import DeadlineExceeded, NotReady, WavserveError
from wavserve.core.messages import ActionChunk, Observation, PolicyInfo, Vector
from wavserve.core.normalise import statistics_digest
from wavserve.core.spec import PolicySpec, VectorSpec
from wavserve.core.tracing import span
from wavserve.core.types import PlanRequest, RequestFields
from wavserve.edge import validate
from wavserve.edge.decode_threads import DecodeThreads
from wavserve.edge.images.decode import DecodedImage, decode, match_cameras
from wavserve.edge.limits import EdgeLimits
from wavserve.edge.trail import Caller, PlanNote, Trail
from wavserve.planning.gather import gather
from wavserve.planning.timings import Progress
from wavserve.policy.epochs import OpenedSession
from wavserve.scheduling.permits import Permit

T = TypeVar("T")

_SMALL_BODY_BYTES = 128 * 1024
_SMALL_IMAGES_BYTES = 64 * 1024
"""Images that have no more bytes together are decoded by one thread: the hand-over to more threads costs more time
than they save."""

UPLOAD_S = 30.0
"""Seconds that a body may take to arrive, so that no upload keeps its connection open for ever."""
NOT_READY = "the service is starting, draining or repairing its models"


class PolicyProtocol(Protocol):
    """The part of a policy that the edges use."""

    @property
    def spec(self) -> PolicySpec: ...

    @property
    def digest(self) -> str: ...

    @property
    def golden_digest(self) -> str:
        """SHA-256 of the golden plan; empty: the policy has none."""
        ...

    @property
    def ready(self) -> bool: ...

    @property
    def fault(self) -> str | None:
        """What is wrong with the plans of a device; None: nothing is known."""
        ...

    def reserve(self, deadline: float | None, num_bytes: int) -> AbstractContextManager[Permit]:
        """Reserves a place for a request whose body is not read yet. `num_bytes`: of the body, as stated; 0: unknown.

        Raises NotReady, DeadlineExceeded or Overloaded when the policy would refuse every such request.
        """
        ...

    async def plan(
        self, request: PlanRequest, deadline: float | None, permit: Permit | None, progress: Progress | None
    ) -> ActionChunk:
        """Makes one plan. `deadline`: absolute, in seconds of `time.monotonic()`, or None. `permit`: from `reserve`.
        `progress` takes what is spent on the plan."""
        ...

    async def reset(self, session_id: str) -> None:
        """Forgets a session's frame memory. Raises UnknownSession."""
        ...

    async def end_session(self, session_id: str) -> None:
        """Gives a session's place back. Does nothing for an unknown session."""
        ...

    async def open_session(self, robot_id: str, resume: str | None, silent_s: float | None) -> OpenedSession:
        """Opens or resumes the session of a robot's stream in a new epoch, as `Epochs.open`."""
        ...

    async def reset_epoch(self, session_id: str, epoch: int) -> OpenedSession:
        """Forgets a session's memory and begins its next epoch, as `Epochs.reset`."""
        ...


@dataclass(frozen=True, slots=True)
class Arrival:
    """An admitted request. `received_ns`: when it arrived (monotonic). `permit`: its place in the policy."""

    received_ns: int
    deadline: float | None = None
    """known before the body is read: the earlier of the headers' and the transport's (monotonic, s); None: neither"""
    permit: Permit = field(default_factory=Permit)
    sender: str = ""
    """as `Caller.sender`"""
    note: PlanNote = field(default_factory=PlanNote)


@dataclass(frozen=True, slots=True)
class Frontend:
    """The requests and answers of both edges, over one policy. Each edge has decode threads of its own."""

    policy: PolicyProtocol
    limits: EdgeLimits
    on_refused: Callable[[str], None] = lambda reason: None
    """called with `deadline` for a request whose deadline passed before the policy was asked"""
    threads: DecodeThreads = field(default_factory=DecodeThreads)
    trail: Trail = field(default_factory=Trail)

    @contextmanager
    def admit(
        self,
        deadlines_ms: Sequence[str],
        received_ns: int,
        caller: Caller,
        num_bytes: int,
        transport_deadline: float | None = None,
        observation: Observation | None = None,
    ) -> Iterator[Arrival]:
        """Admits a request by its headers, before its body is read.

        `deadlines_ms`: every value of `x-deadline-ms` as it was sent; the shortest counts. `received_ns`: when the
        request arrived. `num_bytes`: of the body, as stated; 0: unknown. `transport_deadline`: the transport's own, if
        any. Times are on the monotonic clock (ns, s). `observation`: the body, where it was read before (on a stream).
        Raises InvalidRequest, NotReady, DeadlineExceeded or Overloaded.
        """
        with self.trail.follow(caller, received_ns, self.policy.digest) as note:
            note.observation = observation
            header_ms = min(map(validate.header_deadline_ms, deadlines_ms), default=None)
            deadline = note.deadline = _earlier_deadline(received_ns, header_ms, transport_deadline)
            self._check_time(received_ns, deadline)
            with self.policy.reserve(deadline, num_bytes) as permit:
                yield Arrival(received_ns, deadline, permit, caller.sender, note)

    def refused(self, error: WavserveError, received_ns: int, caller: Caller, observation: Observation | None) -> None:
        """A request failed before it could be admitted. It leaves what others leave.

        `observation` None: it could not be read.
        """
        with suppress(WavserveError), self.trail.follow(caller, received_ns, self.policy.digest) as note:
            note.observation = observation
            raise error

    async def plan(self, observation: Observation, arrival: Arrival) -> ActionChunk:
        """Answers one observation. Raises any child of WavserveError. Cancelling this call cancels the plan."""
        self.check_ready()
        note = arrival.note
        note.observation = observation
        state = validate.check(observation, self.policy.spec)
        header = {each.name: getattr(observation, each.name) for each in fields(RequestFields)}
        deadline = _earlier_deadline(arrival.received_ns, observation.deadline_ms, arrival.deadline)
        note.deadline = deadline
        with span("decode images"), self._counting_late():
            decoded = await self._decode(observation, arrival.sender, deadline)
        request = PlanRequest(
            images={camera: image.pixels for camera, image in decoded.items()},
            image_digests={camera: image.digest for camera, image in decoded.items()},
            state=state,
            **header,
        )
        chunk = note.chunk = await self._plan(request, deadline, arrival.permit, note.progress)
        captured_ns = [image.captured_mono_ns for image in observation.images if image.captured_mono_ns]
        return replace(
            chunk,
            captured_mono_ns=min(captured_ns, default=0),
            server_recv_ns=arrival.received_ns,
            server_send_ns=monotonic_ns(),
        )

    async def _plan(
        self, request: PlanRequest, deadline: float | None, permit: Permit, progress: Progress
    ) -> ActionChunk:
        """The policy's plan. Raises NotReady when the service itself cancelled it: the robot must get an answer."""
        try:
            return await self.policy.plan(request, deadline, permit, progress)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise NotReady("the server cancelled the plan") from None

    async def reset(self, session_id: str) -> None:
        """Forgets a session's frame memory. Raises InvalidRequest, UnknownSession or NotReady."""
        self.check_ready()
        validate.check_session_id(session_id)
        await self.policy.reset(session_id)

    async def end_session(self, session_id: str) -> None:
        """Gives the place of a session back that nobody will use again. Raises InvalidRequest."""
        validate.check_session_id(session_id)
        await self.policy.end_session(session_id)

    async def open_session(self, robot_id: str, resume: str | None, silent_s: float | None) -> OpenedSession:
        """Opens the session of a robot's stream. Raises NotReady, Overloaded, OutcomeUnknown and SequenceConflict."""
        return await self.policy.open_session(robot_id, resume, silent_s)

    async def reset_epoch(self, session_id: str, epoch: int) -> OpenedSession:
        """Begins a new epoch without memory. Raises StaleEpoch, UnknownSession, NotReady and OutcomeUnknown."""
        return await self.policy.reset_epoch(session_id, epoch)

    def info(self, policy: str | None = None) -> PolicyInfo:
        """The facts about the served policy. Raises UnknownPolicy when `policy` names another one."""
        spec = self.policy.spec
        validate.check_policy(policy, spec)
        return PolicyInfo(
            name=spec.name,
            digest=self.policy.digest,
            untrained=spec.untrained,
            cameras=spec.cameras,
            state=_vector(spec.state),
            action=replace(_vector(spec.action.vector), limits=spec.action.limits, hold=spec.action.hold),
            horizon=spec.chunk,
            control_hz=spec.control_hz,
            history_frames=spec.latent.num_memory_frames,
            max_instruction_bytes=spec.max_instruction_bytes,
            defaults=spec.planner,
            bounds=spec.bounds,
            notes=spec.notes,
            max_message_bytes=self.limits.max_body_bytes,
            embodiment=spec.embodiment,
            action_kind=spec.action.kind,
            rtc=spec.rtc,
            rtc_modes=spec.rtc_modes,
            max_trained_delay=spec.max_trained_delay,
            golden_digest=self.policy.golden_digest,
        )

    async def receive(self, body: Awaitable[bytes], arrival: Arrival) -> bytes:
        """Waits for a body. Raises DeadlineExceeded when it does not arrive by the deadline, or within UPLOAD_S."""
        latest = min(arrival.received_ns / 1e9 + UPLOAD_S, math.inf if arrival.deadline is None else arrival.deadline)
        try:
            with span("receive"):
                async with asyncio.timeout(latest - monotonic()):
                    return await body
        except TimeoutError:
            waited_s = latest - arrival.received_ns / 1e9
            self.on_refused("deadline")
            raise DeadlineExceeded(f"the request body did not arrive within {waited_s:.3f} s of its headers") from None

    async def parse(self, read: Callable[[bytes], T], body: bytes, arrival: Arrival) -> T:
        """Parses a body with the edge's own `read`. A small body stays on the event loop: a thread costs more.

        Raises what `read` raises, and DeadlineExceeded.
        """
        with span("parse"), self._counting_late():
            if len(body) <= _SMALL_BODY_BYTES:
                return read(body)
            return await self.threads.run(partial(read, body), arrival.sender, arrival.deadline)

    def check_ready(self) -> None:
        """Raises NotReady unless the policy accepts requests."""
        if not self.policy.ready:
            raise NotReady(self.policy.fault or NOT_READY)

    def _check_time(self, received_ns: int, deadline: float | None) -> None:
        """Raises DeadlineExceeded when the deadline passed while the request waited."""
        if deadline is not None and (now := monotonic()) >= deadline:
            self.on_refused("deadline")
            raise DeadlineExceeded(f"the deadline passed while the request waited for {now - received_ns / 1e9:.3f} s")

    @contextmanager
    def _counting_late(self) -> Iterator[None]:
        try:
            yield
        except DeadlineExceeded:
            self.on_refused("deadline")
            raise

    async def _decode(
        self, observation: Observation, sender: str, deadline: float | None
    ) -> Mapping[str, DecodedImage]:
        """camera -> image. The first image that is refused cancels the others that wait."""
        cameras = self.policy.spec.cameras
        matched = match_cameras(observation.images, cameras)
        work = [partial(decode, matched[camera.name], camera, self.limits) for camera in cameras]
        if sum(len(image.data) for image in matched.values()) <= _SMALL_IMAGES_BYTES:
            images = await self.threads.run_in_turn(work, sender, deadline)
        else:
            images = await gather(*(self.threads.run(each, sender, deadline) for each in work))
        return dict(zip(matched, images, strict=True))


def _vector(declared: VectorSpec) -> Vector:
    return Vector(declared.names, declared.units, statistics_digest(declared.norm))


def _earlier_deadline(received_ns: int, deadline_ms: int | None, other: float | None) -> float | None:
    """The earlier of a deadline in milliseconds from receipt and another one, in seconds; None: neither."""
    first = None if deadline_ms is None else received_ns / 1e9 + deadline_ms / 1e3
    return min((deadline for deadline in (first, other) if deadline is not None), default=None)
