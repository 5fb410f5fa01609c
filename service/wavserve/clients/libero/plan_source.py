"""Where an episode gets its plans: one seam, so that an episode does not know how its plans travel.

A source knows the policy's pictures, the planner's options and the session. It knows no clock and no simulator.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wavserve.clients.images import ImageEncoder
from wavserve.core.errors import ContractMismatch, WavserveError
from wavserve.core.messages import ActionChunk, Observation, PolicyInfo
from wavserve.core.resize import Pixels
from wavserve.core.rtc import RtcRequest
from wavserve.core.spec import CameraSpec, Orientation, RtcMode
from wavserve.core.tracing import Tracer

_OTHER: Mapping[Orientation, Orientation] = {"as_captured": "rotated_180", "rotated_180": "as_captured"}


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class EpisodePlan:
    """What an episode asks of a source at one control step."""

    images: Mapping[str, Pixels]
    """by camera, as captured: the source turns them"""
    state: NDArray[np.float64]
    """`[S]`"""
    control_step: int
    """index of the next command"""
    executed_steps: int
    """actions of chunks that were executed since the observation of the previous plan that came; 0 before the first"""
    seed: int
    rtc: RtcRequest | None = None
    """the left-over and its delay, for real-time chunking; None: there is none"""


class PlanSource(Protocol):
    """Plans for one episode at a time. Not for several threads at once."""

    def begin(self, instruction: str) -> None:
        """Begins an episode: a new session, without memory. Raises NotReady when nobody answers."""
        ...

    def plan(self, request: EpisodePlan) -> ActionChunk:
        """Waits for a plan. Raises the server's error. After any but UnsafeChunk the episode must begin anew."""
        ...

    def policy(self) -> PolicyInfo:
        """The policy's facts."""
        ...

    def close(self) -> None:
        """Ends the session. May be called twice."""
        ...


class Planner(Protocol):
    """Who answers requests one by one: `PlanClient`, or a policy in this process."""

    def plan(self, observation: Observation) -> ActionChunk: ...
    def end(self, session_id: str) -> None: ...
    def policy(self) -> PolicyInfo: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceConfig:
    """How a source asks."""

    rotation: int
    """degrees by which the policy's pictures are turned against the captured ones: 0 or 180"""
    options: Mapping[str, object] = field(default_factory=dict)
    """planner options, instead of the policy's defaults"""
    rtc_mode: RtcMode = "off"
    jpeg_quality: int | None = None
    """None: raw pixels"""
    tracer: Tracer = field(default_factory=Tracer)
    """begins the spans of a stream's observations; those of requests are the planner's"""


class UnarySource:
    """A source over requests and answers. It does not close the planner, which other sources may use too."""

    def __init__(self, planner: Planner, policy: PolicyInfo, config: SourceConfig) -> None:
        self._planner, self._policy, self._config = planner, policy, config
        orientations = given_orientations(policy.cameras, config.rotation)
        self._encoder = ImageEncoder(policy.cameras, orientations, config.jpeg_quality)
        self._session_id: str | None = None
        self.begin("")

    def begin(self, instruction: str) -> None:
        """As `PlanSource.begin`. The service opens the session with the first plan."""
        self.close()
        self._instruction = instruction
        self._sequence = -1  # of the latest request; an answered one or not, as on a stream

    def plan(self, request: EpisodePlan) -> ActionChunk:
        """As `PlanSource.plan`. Raises ContractMismatch when the service has another policy by now."""
        self._sequence += 1
        chunk = self._planner.plan(
            Observation(
                images=self._encoder.encode(request.images),
                state=tuple(request.state.tolist()),
                instruction=self._instruction,
                session_id=self._session_id,
                sequence=self._sequence,
                control_step=request.control_step,
                executed_steps=request.executed_steps,
                seed=request.seed,
                options=self._config.options,
                rtc=request.rtc or RtcRequest(mode=self._config.rtc_mode),
            )
        )
        self._session_id = chunk.session_id
        if (digest := chunk.receipt.policy_digest) != self._policy.digest:  # the service was restarted meanwhile
            raise ContractMismatch("policy_digest", self._policy.digest, digest)
        return chunk

    def policy(self) -> PolicyInfo:
        """As `PlanSource.policy`."""
        return self._policy

    def close(self) -> None:
        """As `PlanSource.close`. The service keeps a number of sessions and would refuse those of others.

        A session is not used for another episode: its sequence numbers go on, and a plan's noise depends on them.
        """
        if self._session_id is not None:
            session_id, self._session_id = self._session_id, None
            with suppress(WavserveError):  # a service that is away has lost it
                self._planner.end(session_id)


def given_orientations(cameras: tuple[CameraSpec, ...], rotation: int) -> dict[str, Orientation]:
    """What an encoder must believe of the captured pictures, for it to turn them by `rotation` degrees."""
    return {each.name: each.orientation if rotation == 0 else _OTHER[each.orientation] for each in cameras}
