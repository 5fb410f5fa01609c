"""The one door behind both edges: a submission is checked, its pictures decoded, the policy asked, the answer packed.

`http_api` and `grpc_api` spell requests and answers and do nothing else; whatever they must agree on happens here.
Knows no status code and neither wire.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from time import monotonic, monotonic_ns
from typing import Protocol, TypeVar

from wavserve.core.errors import DeadlineExceeded, NotReady
from wavserve.core.messages import Chunk, EncodedImage, PolicyInfo, Submission, Vector
from wavserve.core.spec import PolicySpec
from wavserve.core.types import Picture, PlanRequest, PlanResult
from wavserve.edge import images, validate
from wavserve.edge.limits import EdgeLimits
from wavserve.policy.inflight import Permit

T = TypeVar("T")

_SMALL_BODY_BYTES = 128 * 1024

UPLOAD_S = 30.0
"""How long a body may take to come; its connection is not kept open for ever."""


class Planning(Protocol):
    """What the edges ask of a policy."""

    @property
    def spec(self) -> PolicySpec: ...

    @property
    def digest(self) -> str: ...

    @property
    def ready(self) -> bool: ...

    def enter(self, deadline: float | None) -> AbstractContextManager[Permit]:
        """A place for a request that is still to be read.

        Raises NotReady, DeadlineExceeded or Overloaded where it would be refused whatever it asks for.
        """
        ...

    async def plan(self, request: PlanRequest, deadline: float | None, permit: Permit | None) -> PlanResult:
        """One plan. `deadline`: absolute, on `time.monotonic()`; None = none. `permit`: from `enter`."""
        ...

    async def reset(self, session_id: str) -> None:
        """Forgets a session's frame memory. Raises UnknownSession."""
        ...


@dataclass(frozen=True, slots=True)
class Visit:
    """A request that was let in: when it came, what its headers say, and the place that is kept for it."""

    received_ns: int
    deadline: float | None = None
    permit: Permit = field(default_factory=Permit)


@dataclass(frozen=True, slots=True)
class Door:
    """`executor` decodes pictures and parses bodies; None is the event loop's own pool."""

    policy: Planning
    limits: EdgeLimits
    executor: Executor | None = None

    @contextmanager
    def knock(self, deadlines_ms: Sequence[str], received_ns: int, expires: float | None = None) -> Iterator[Visit]:
        """A request that arrived at `received_ns`, judged by its headers before its body is read.

        `deadlines_ms` as they came in `x-deadline-ms`, the shortest counts; `expires` is the transport's own deadline,
        if any. Times are on the monotonic clock (ns, s). Raises InvalidRequest, NotReady, DeadlineExceeded, Overloaded.
        """
        told_ms = min(map(validate.header_deadline_ms, deadlines_ms), default=None)
        deadline = _deadline(received_ns, told_ms, expires)
        with self.policy.enter(deadline) as permit:
            yield Visit(received_ns, deadline, permit)

    async def plan(self, submission: Submission, visit: Visit) -> Chunk:
        """Answers one submission. Raises any child of WavserveError; cancelling it cancels the plan."""
        self._check_ready()
        state = validate.check(submission, self.policy.spec)
        request = PlanRequest(
            images=await self._decode(submission),
            state=state,
            instruction=submission.instruction,
            session_id=submission.session_id,
            sequence=submission.sequence,
            control_step=submission.control_step,
            executed_steps=submission.executed_steps,
            policy=submission.policy,
            options=submission.options,
            seed=submission.seed,
            imagine_chunks=submission.imagine_chunks,
        )
        deadline = _deadline(visit.received_ns, submission.deadline_ms, visit.deadline)
        return self._chunk(await self._plan(request, deadline, visit.permit), submission, visit.received_ns)

    async def _plan(self, request: PlanRequest, deadline: float | None, permit: Permit) -> PlanResult:
        """The policy's plan; one that the service itself cancelled is NotReady, for its robot still waits."""
        try:
            return await self.policy.plan(request, deadline, permit)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise NotReady("the plan was cancelled by the server") from None

    async def reset(self, session_id: str) -> None:
        """Forgets a session's frame memory. Raises InvalidRequest, UnknownSession or NotReady."""
        self._check_ready()
        validate.check_session_id(session_id)
        await self.policy.reset(session_id)

    def info(self, policy: str | None = None) -> PolicyInfo:
        """The served policy's facts. Raises UnknownPolicy when another one is asked for."""
        spec = self.policy.spec
        validate.check_policy(policy, spec)
        return PolicyInfo(
            name=spec.name,
            digest=self.policy.digest,
            untrained=spec.untrained,
            cameras=spec.cameras,
            state=Vector(spec.state.names, spec.state.units),
            action=Vector(spec.action.vector.names, spec.action.vector.units),
            horizon=spec.chunk,
            control_hz=spec.control_hz,
            history_frames=spec.latent.num_memory_frames,
            max_instruction_bytes=spec.max_instruction_bytes,
            defaults=spec.planner,
            bounds=spec.bounds,
            notes=spec.notes,
            max_message_bytes=self.limits.max_body_bytes,
        )

    async def receive(self, body: Awaitable[bytes], visit: Visit) -> bytes:
        """A body that is still coming. Raises DeadlineExceeded when it has not come by the deadline, or UPLOAD_S."""
        latest = min(visit.received_ns / 1e9 + UPLOAD_S, math.inf if visit.deadline is None else visit.deadline)
        try:
            async with asyncio.timeout(latest - monotonic()):
                return await body
        except TimeoutError:
            waited_s = latest - visit.received_ns / 1e9
            raise DeadlineExceeded(f"the body had not come {waited_s:.3f} s after its head") from None

    async def parse(self, read: Callable[[bytes], Submission], body: bytes) -> Submission:
        """Reads a body by the edge's own `read`, on the event loop only where a hop to a thread would cost more."""
        return read(body) if len(body) <= _SMALL_BODY_BYTES else await self._in_thread(read, body)

    async def _in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        """Runs work that would hold up the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self.executor, work, *arguments)

    def _check_ready(self) -> None:
        if not self.policy.ready:
            raise NotReady("the service is starting, draining or repairing its models; /readyz tells when it serves")

    async def _decode(self, submission: Submission) -> Mapping[str, images.Pixels]:
        cameras = self.policy.spec.cameras
        matched = images.match_cameras(submission.images, cameras)
        decoding = (self._in_thread(images.decode, matched[camera.name], camera, self.limits) for camera in cameras)
        return dict(zip(matched, await asyncio.gather(*decoding), strict=True))

    def _chunk(self, result: PlanResult, submission: Submission, received_ns: int) -> Chunk:
        return Chunk(
            session_id=result.session_id,
            sequence=result.sequence,
            first_control_step=result.first_control_step,
            dt_ns=round(1e9 / self.policy.spec.control_hz),
            actions=result.actions,
            valid_until_step=result.first_control_step + len(result.actions),
            receipt=result.receipt,
            imagined={camera: _images(camera, frames) for camera, frames in result.imagined.items()},
            chunk_id=_chunk_id(result),
            captured_mono_ns=min((i.captured_mono_ns for i in submission.images if i.captured_mono_ns), default=0),
            server_recv_ns=received_ns,
            server_send_ns=monotonic_ns(),
            warnings=("untrained weights: never run these actions on a robot",) if result.receipt.untrained else (),
        )


def _deadline(received_ns: int, deadline_ms: int | None, expires: float | None) -> float | None:
    """The earlier of the request's own deadline and the transport's, in `time.monotonic()` seconds."""
    own = None if deadline_ms is None else received_ns / 1e9 + deadline_ms / 1e3
    return min((limit for limit in (own, expires) if limit is not None), default=None)


def _chunk_id(result: PlanResult) -> str:
    """Named by content: a retry is told the same id, and no id tells the session's."""
    content = f"{result.session_id}/{result.sequence}/{result.receipt.seed}/".encode() + result.actions.tobytes()
    return hashlib.sha256(content).hexdigest()[:16]


def _images(camera: str, frames: Sequence[Picture]) -> tuple[EncodedImage, ...]:
    return tuple(EncodedImage(camera, "png", each.png, each.height, each.width, channels=3) for each in frames)
