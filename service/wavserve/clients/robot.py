"""What a robot tells its client, and what the client tells the robot's program. Data only: no link, no clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from wavserve.core.control import GoAway, ObservationDropped, ResetAck, StreamError, Welcome
from wavserve.core.errors import WavserveError
from wavserve.core.jpeg import JPEG_QUALITY
from wavserve.core.messages import ActionChunk, PolicyInfo, Vector
from wavserve.core.resize import Pixels
from wavserve.core.rtc import RtcRequest
from wavserve.core.spec import Orientation
from wavserve.core.tracing import Tracer
from wavserve.core.types import Array


@dataclass(frozen=True, slots=True)
class CameraDescription:
    """A camera of the robot, by the name that the policy has for it."""

    name: str
    orientation: Orientation = "as_captured"
    """of the pictures that the program gives. The client turns them by 180 degrees where the policy wants the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RobotDescription:
    """What the robot is. The client compares it with the policy before anything moves."""

    robot_id: str
    embodiment: str
    """the kind of robot, such as `piper_dual`"""
    state: Vector
    """names and units of what it measures, in the order in which it gives them; a statistics digest is compared too"""
    action: Vector
    """the same of what it executes"""
    control_hz: float
    cameras: tuple[CameraDescription, ...]

    @classmethod
    def as_declared(cls, policy: PolicyInfo, robot_id: str, orientations: Mapping[str, Orientation]) -> Self:
        """A robot that has what the policy declares: for a program that has compared its own robot by other means.

        `orientations`: of the pictures that the program gives, by camera.
        """
        return cls(
            robot_id=robot_id,
            embodiment=policy.embodiment,
            state=policy.state,
            action=policy.action,
            control_hz=policy.control_hz,
            cameras=tuple(CameraDescription(name, orientation) for name, orientation in orientations.items()),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RobotOptions:
    """How the client works."""

    policy_digest: str = ""
    """the only policy that may move the robot; empty: the one that the server has at the first connection"""
    resume_session_id: str = ""
    """the session of an earlier run of this program, which may have ended a few seconds ago; empty: a new session"""
    jpeg_quality: int | None = JPEG_QUALITY
    """None: raw pixels"""
    deadline_ms: int | None = None
    """of each plan, from the receipt of its observation; None: no deadline"""
    planner: Mapping[str, object] = field(default_factory=dict)
    """planner options by name, instead of the policy's defaults"""
    rtc: RtcRequest | None = None
    """real-time chunking; the delay and the left-over come with each observation"""
    backoff_s: tuple[float, float] = (0.25, 5.0)
    """the longest pause before the first and before the last attempts to connect again"""
    ping_interval_s: float = 0.1
    link_timeout_s: float = 0.5
    """without a byte of the server for this long, the link is lost"""
    attempt_timeout_s: float = 5.0
    """how long one attempt to connect may take"""
    proxy: bool = False
    """connect through the HTTP proxy of the environment; see `PlanClient`"""
    tracer: Tracer = field(default_factory=Tracer)
    """begins the span of each observation, from `observe` to its answer"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RobotObservation:
    """What the robot sees, has and does. The client adds session, epoch, sequence and deadline."""

    images: Mapping[str, Pixels]
    """camera -> `[height, width, 3]` RGB"""
    state: tuple[float, ...]
    """`[S]`"""
    control_step: int
    """index of the next command when the images were captured"""
    executed_steps: int
    """actions of chunks that were executed so far, in all epochs (`ActionPlayer.executed_steps`)"""
    instruction: str = ""
    """the task; empty: unchanged"""
    left_over: Array | None = None
    """`[n, A]` for real-time chunking: the actions from `control_step` on (`ActionPlayer.left_over`)"""
    inference_delay: int = 0
    """for real-time chunking: steps that will be executed before the chunk arrives. The client sends at most as many as
    are left and as were executed since the previous observation: more cannot be continued."""
    captured_mono_ns: int = 0
    """0: now"""
    seed: int | None = None
    """of the plan; None: the service draws one"""


@dataclass(frozen=True, slots=True)
class LinkDown:
    """The stream ended, or no attempt to connect succeeded. The client tries again after the pause."""

    error: WavserveError
    pause_s: float

    @property
    def moves(self) -> bool:
        """Whether another gateway is asked at once."""
        return self.pause_s == 0.0


@dataclass(frozen=True, slots=True)
class Stopped:
    """The client connects no more: the error needs a decision of the program. Another policy is `ContractMismatch`."""

    error: WavserveError


Event = Welcome | ActionChunk | ObservationDropped | StreamError | ResetAck | GoAway | LinkDown | Stopped
"""What happened. `Welcome` and `ResetAck` begin an epoch: give it to `ActionPlayer.begin_epoch`."""


@dataclass(frozen=True, slots=True)
class LinkState:
    """The link at this moment."""

    connected: bool
    """whether a stream is open"""
    session_id: str
    """empty before the first `Welcome`"""
    epoch: int
    silent_s: float
    """seconds since the last message of a server; infinity without a stream, unless another gateway is asked at once"""
    link_timeout_s: float
    num_unreadable: int = 0
    """messages of the server that could not be read; each one ended its stream"""
    resumed: bool = False
    """whether the epoch goes on with the session of an earlier stream"""

    @property
    def lost(self) -> bool:
        """The stream ended and no other gateway took over in time, or the server has been silent for too long: hold."""
        return self.silent_s > self.link_timeout_s
