"""What both edges share: admit a request, check it, decode its images, ask the policy, complete the answer.

The edges only read requests and write answers. Whatever they must agree on happens here. Knows no status code and
neither wire format.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, fields, replace
from time import monotonic, monotonic_ns
from typing import Protocol, TypeVar

from wavserve.core.errors import DeadlineExceeded, NotReady
from wavserve.core.messages import ActionChunk, Observation, PolicyInfo, Vector
from wavserve.core.spec import PolicySpec
from wavserve.core.types import PlanRequest, RequestFields
from wavserve.edge import images, validate
from wavserve.edge.limits import EdgeLimits
from wavserve.scheduling.permits import Permit

T = TypeVar("T")

_SMALL_BODY_BYTES = 128 * 1024

UPLOAD_S = 30.0
"""Seconds that a body may take to arrive, so that no upload keeps its connection open for ever."""


class PolicyProtocol(Protocol):
    """The part of a policy that the edges use."""

    @property
    def spec(self) -> PolicySpec: ...

    @property
    def digest(self) -> str: ...

    @property
    def ready(self) -> bool: ...

    def reserve(self, deadline: float | None) -> AbstractContextManager[Permit]:
        """Keeps a place for a request whose body is still to be read.

        Raises NotReady, DeadlineExceeded or Overloaded when the policy would refuse the request whatever it asks for.
        """
        ...

    async def plan(self, request: PlanRequest, deadline: float | None, permit: Permit | None) -> ActionChunk:
        """Makes one plan. `deadline`: absolute, on `time.monotonic()`; None: none. `permit`: from `reserve`."""
        ...

    async def reset(self, session_id: str) -> None:
        """Forgets a session's frame memory. Raises UnknownSession."""
        ...


@dataclass(frozen=True, slots=True)
class Arrival:
    """An admitted request: its arrival (monotonic, ns), the deadline its headers set (monotonic, s), and its permit."""

    received_ns: int
    deadline: float | None = None
    permit: Permit = field(default_factory=Permit)


@dataclass(frozen=True, slots=True)
class Frontend:
    """`executor` decodes images and parses large bodies; None: the event loop's own pool."""

    policy: PolicyProtocol
    limits: EdgeLimits
    executor: Executor | None = None

    @contextmanager
    def admit(self, deadlines_ms: Sequence[str], received_ns: int, expires: float | None = None) -> Iterator[Arrival]:
        """Admits a request by its headers, before its body is read.

        `deadlines_ms`: every value of `x-deadline-ms` as it was sent; the shortest counts. `received_ns`: when the
        request arrived. `expires`: the transport's own deadline, if any. Times are on the monotonic clock (ns, s).
        Raises InvalidRequest, NotReady, DeadlineExceeded or Overloaded.
        """
        header_ms = min(map(validate.header_deadline_ms, deadlines_ms), default=None)
        deadline = _deadline(received_ns, header_ms, expires)
        with self.policy.reserve(deadline) as permit:
            yield Arrival(received_ns, deadline, permit)

    async def plan(self, observation: Observation, arrival: Arrival) -> ActionChunk:
        """Answers one observation. Raises any child of WavserveError. Cancelling this call cancels the plan."""
        self._check_ready()
        state = validate.check(observation, self.policy.spec)
        header = {each.name: getattr(observation, each.name) for each in fields(RequestFields)}
        request = PlanRequest(images=await self._decode(observation), state=state, **header)
        deadline = _deadline(arrival.received_ns, observation.deadline_ms, arrival.deadline)
        chunk = await self._plan(request, deadline, arrival.permit)
        captured_ns = [image.captured_mono_ns for image in observation.images if image.captured_mono_ns]
        return replace(
            chunk,
            captured_mono_ns=min(captured_ns, default=0),
            server_recv_ns=arrival.received_ns,
            server_send_ns=monotonic_ns(),
        )

    async def _plan(self, request: PlanRequest, deadline: float | None, permit: Permit) -> ActionChunk:
        """The policy's plan. Raises NotReady when the service itself cancelled it, because the robot still waits."""
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
        """What a robot must know about the served policy. Raises UnknownPolicy when `policy` names another one."""
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

    async def receive(self, body: Awaitable[bytes], arrival: Arrival) -> bytes:
        """Waits for a body. Raises DeadlineExceeded when it does not arrive by the deadline, or within UPLOAD_S."""
        latest = min(arrival.received_ns / 1e9 + UPLOAD_S, math.inf if arrival.deadline is None else arrival.deadline)
        try:
            async with asyncio.timeout(latest - monotonic()):
                return await body
        except TimeoutError:
            waited_s = latest - arrival.received_ns / 1e9
            raise DeadlineExceeded(f"the request body did not arrive within {waited_s:.3f} s of its headers") from None

    async def parse(self, read: Callable[[bytes], Observation], body: bytes) -> Observation:
        """Parses a body with the edge's own `read`. A small body stays on the event loop: a thread costs more."""
        return read(body) if len(body) <= _SMALL_BODY_BYTES else await self._in_thread(read, body)

    async def _in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        """Runs work that would block the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self.executor, work, *arguments)

    def _check_ready(self) -> None:
        if not self.policy.ready:
            raise NotReady("the service is starting, draining or repairing its models; see /readyz")

    async def _decode(self, observation: Observation) -> Mapping[str, images.Pixels]:
        cameras = self.policy.spec.cameras
        matched = images.match_cameras(observation.images, cameras)
        decoding = (self._in_thread(images.decode, matched[camera.name], camera, self.limits) for camera in cameras)
        return dict(zip(matched, await asyncio.gather(*decoding), strict=True))


def _deadline(received_ns: int, deadline_ms: int | None, expires: float | None) -> float | None:
    """The earlier of the request's own deadline and the transport's, in `time.monotonic()` seconds; None: neither."""
    own = None if deadline_ms is None else received_ns / 1e9 + deadline_ms / 1e3
    return min((limit for limit in (own, expires) if limit is not None), default=None)
