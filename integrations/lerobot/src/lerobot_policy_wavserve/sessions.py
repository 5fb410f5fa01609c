"""Sessions at a service, one for each environment of a batch. Plans for all environments are asked for at once.

A session sends what its environment shows and gets a chunk of actions. Knows neither torch nor LeRobot.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import numpy as np

from wavserve.clients.images import ImageEncoder
from wavserve.core.errors import ContractMismatch, InvalidAnswer, InvalidRequest, UnknownSession, WavserveError
from wavserve.core.jpeg import JPEG_QUALITY
from wavserve.core.messages import ActionChunk, Observation, PolicyInfo
from wavserve.core.resize import Pixels
from wavserve.core.rtc import RtcRequest
from wavserve.core.spec import CameraSpec, Orientation
from wavserve.core.types import Array

_log = logging.getLogger(__name__)

Transport = Literal["grpc", "http", "stream"]
_MAX_THREADS = 64
"""Plans that are asked for at once. They are made when they are needed."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Seen:
    """What one environment shows at a control step."""

    images: Mapping[str, Pixels]
    """by the policy's name of the camera"""
    state: tuple[float, ...]
    """`[S]`"""
    instruction: str


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Moment:
    """When a plan is asked for, and what it continues."""

    control_step: int
    """index of the next action of the episode"""
    executed_steps: int
    """actions that were executed since the previous plan"""
    left_over: Array | None = None
    """`[n, A]`: actions from `control_step` on that the plan continues; None: it continues nothing"""
    inference_delay: int = 0
    """of these, the ones that are executed before the plan arrives"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """How sessions ask for plans."""

    deadline_ms: int | None = None
    planner: Mapping[str, object] = field(default_factory=dict)
    """planner options by name, instead of the policy's defaults"""
    jpeg_quality: int | None = JPEG_QUALITY
    """None: raw pixels"""
    orientation: Orientation | None = None
    """of the pictures that are given; None: as the policy wants them"""
    rtc: RtcRequest | None = None
    """how plans continue what is left over of the previous chunk; None: by the policy's defaults"""


class Session(Protocol):
    """The plans of one environment. Not for several threads at once."""

    def begin(self, seed: int | None) -> None:
        """Begins an episode: the next plan has no memory. `seed`: of every plan of it; None: the service draws one."""
        ...

    def plan(self, seen: Seen, moment: Moment) -> ActionChunk:
        """Waits for a plan. Raises the service's error."""
        ...

    def close(self) -> None:
        """Ends the session. May be called twice."""
        ...


class Planner(Protocol):
    """Who answers requests one by one, such as `PlanClient`. For several threads at once."""

    def plan(self, observation: Observation) -> ActionChunk: ...
    def reset(self, session_id: str) -> None: ...
    def end(self, session_id: str) -> None: ...


class UnarySession:
    """A session over single requests. The service opens it with the first one.

    Every episode has the same session: a service keeps a limited number.
    """

    def __init__(self, planner: Planner, policy: PolicyInfo, asking: Asking) -> None:
        self._planner, self._policy, self._asking = planner, policy, asking
        self._encoder = ImageEncoder(policy.cameras, given(policy.cameras, asking.orientation), asking.jpeg_quality)
        self._session_id: str | None = None
        self._sequence = 0
        self.begin(None)

    def begin(self, seed: int | None) -> None:
        """As `Session.begin`. The service is told with the next plan."""
        self._seed, self._has_begun = seed, False

    def plan(self, seen: Seen, moment: Moment) -> ActionChunk:
        """As `Session.plan`. Each call has a number of its own: an observation is never sent again."""
        if not self._has_begun:
            self._forget()
        sequence, self._sequence = self._sequence, self._sequence + 1
        chunk = self._planner.plan(
            Observation(
                images=self._encoder.encode(seen.images),
                state=seen.state,
                instruction=seen.instruction,
                session_id=self._session_id,
                sequence=sequence,
                control_step=moment.control_step,
                executed_steps=moment.executed_steps,
                policy=self._policy.name,
                options=self._asking.planner,
                seed=self._seed,
                deadline_ms=self._asking.deadline_ms,
                rtc=self._rtc(moment),
            )
        )
        self._session_id = chunk.session_id
        return chunk

    def close(self) -> None:
        """As `Session.close`. A service that is away has lost the session, or forgets it later."""
        if self._session_id is not None:
            session_id, self._session_id = self._session_id, None
            with suppress(WavserveError):
                self._planner.end(session_id)

    def _forget(self) -> None:
        """Makes the service forget the earlier episode. A session that it no longer has is opened anew."""
        if self._session_id is not None:
            try:
                self._planner.reset(self._session_id)
            except UnknownSession:
                self._session_id = None
        self._has_begun = True

    def _rtc(self, moment: Moment) -> RtcRequest | None:
        if moment.left_over is None:
            return self._asking.rtc
        settings = self._asking.rtc or RtcRequest()
        return replace(settings, prev_chunk_left_over=moment.left_over, inference_delay=moment.inference_delay)


class Sessions:
    """The sessions of a batch of environments, which take their steps together."""

    def __init__(self, policy: PolicyInfo, open_session: Callable[[int], Session], seed: int | None = None) -> None:
        """`open_session`: gives the session of an environment, by its index in the batch. `seed`: of the plans of the
        first environment's first episode; every other episode of an environment has the next one."""
        self._policy, self._open, self._next_seed = policy, open_session, seed
        self._sessions: list[Session] = []
        self._has_begun = False
        self._planned_at: list[int] = []  # of each session: the step of its latest plan in this episode
        self._threads = ThreadPoolExecutor(_MAX_THREADS, "wavserve-plans")

    def plan(
        self, seen: Sequence[Seen], control_step: int, left_over: Sequence[Array] = (), inference_delay: int = 0
    ) -> list[Array]:
        """Actions `[n, A]` for each environment from `control_step` on, n at most T.

        `left_over`: `[n, A]` for each environment, or none. More of it than the service can continue is left out: the
        delay is at most the actions that are left and the steps since the latest plan.

        Raises the first environment's error after all have their answers. The same step may then be asked for again.
        """
        self._begin(len(seen))
        rests: Sequence[Array | None] = left_over or [None] * len(seen)
        moments = [
            self._moment(control_step, control_step - planned_at, rest, inference_delay)
            for planned_at, rest in zip(self._planned_at, rests, strict=True)
        ]
        triples = zip(self._sessions, seen, moments, strict=True)
        asked = [self._threads.submit(session.plan, shown, moment) for session, shown, moment in triples]
        wait(asked)
        before = zip(asked, self._planned_at, strict=True)
        self._planned_at = [planned_at if each.exception() else control_step for each, planned_at in before]
        return [self._actions(each.result(), control_step) for each in asked]

    def reset(self) -> None:
        """Begins an episode: the next plans have no memory, and the batch may have another size."""
        self._has_begun = False

    def close(self) -> None:
        """Ends all sessions."""
        self._resize(0)
        self._threads.shutdown()

    def _begin(self, num_environments: int) -> None:
        if not self._has_begun:
            self._resize(num_environments)
            for session in self._sessions:
                session.begin(self._seed())
            self._has_begun, self._planned_at = True, [0] * num_environments
        if len(self._sessions) != num_environments:
            expected = f"{len(self._sessions)} environments, as since the last reset"
            raise InvalidRequest("batch", expected, f"{num_environments} environments")

    def _resize(self, num_environments: int) -> None:
        for session in self._sessions[num_environments:]:
            session.close()
        more = range(len(self._sessions), num_environments)
        self._sessions = [*self._sessions[:num_environments], *(self._open(index) for index in more)]

    def _seed(self) -> int | None:
        seed = self._next_seed
        self._next_seed = None if seed is None else seed + 1
        return seed

    def _moment(self, control_step: int, executed: int, left_over: Array | None, inference_delay: int) -> Moment:
        moment = Moment(control_step=control_step, executed_steps=executed)
        if left_over is None or not len(left_over):
            return moment
        delay = min(inference_delay, len(left_over), executed)
        too_old = executed > self._policy.horizon - delay
        return moment if too_old else replace(moment, left_over=left_over, inference_delay=delay)

    def _actions(self, chunk: ActionChunk, control_step: int) -> Array:
        """The actions that may be executed. Raises InvalidAnswer, and ContractMismatch for another policy's chunk."""
        if chunk.receipt.policy_digest != self._policy.digest:
            raise ContractMismatch("policy_digest", self._policy.digest, chunk.receipt.policy_digest)
        actions = chunk.actions[: max(chunk.valid_until_step - control_step, 0)]
        expected = (control_step, len(self._policy.action.names))
        fits = (chunk.first_control_step, *actions.shape[1:]) == expected and len(actions) > 0
        if not fits or not np.isfinite(actions).all():
            actual = f"{list(actions.shape)} from step {chunk.first_control_step} on"
            wanted = f"finite [n, {expected[1]}] from step {control_step} on"
            raise InvalidAnswer(f"actions: expected {wanted}, got {actual}")
        if chunk.cut is not None:
            _log.warning("a chunk has %d actions of %d: %s", len(actions), self._policy.horizon, chunk.cut)
        return actions


def given(cameras: Sequence[CameraSpec], orientation: Orientation | None) -> dict[str, Orientation]:
    """The orientation of the pictures that are given, by camera."""
    return {camera.name: orientation or camera.orientation for camera in cameras}
