"""The messages of a robot's stream, independent of their encoding, and what onlookers see of a robot.

The robot sends `ClientMessage`s, and the server sends `ServerMessage`s. A client's messages are unchecked. A chunk is
`messages.ActionChunk`. This module knows neither gRPC nor protobuf.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as field_of
from enum import Enum

from wavserve.core.errors import WavserveError
from wavserve.core.messages import ActionChunk, Observation, PolicyInfo, Vector
from wavserve.core.remote_errors import rebuild_served
from wavserve.core.spec import CameraSpec

PROTOCOL_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """What the client assumes of the policy and of the robot. The server answers any difference with a fatal error."""

    protocol_version: int = PROTOCOL_VERSION
    client_name: str = ""
    client_version: str = ""
    robot_id: str
    embodiment: str
    policy: str
    policy_digest: str
    """as GetPolicy reports it"""
    state: Vector
    """what the client measures"""
    action: Vector
    """what the client executes"""
    control_hz: float
    cameras: tuple[CameraSpec, ...]
    """as the client sends their images; `resize` does not count"""
    instruction: str = ""
    """the task, until an observation changes it"""
    resume_session_id: str | None = None
    """None: a new session"""
    want_iterations: bool = False
    """whether receipts have the record of each planning iteration"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Welcome:
    """The server's answer to Hello: from now on it takes observations."""

    protocol_version: int = PROTOCOL_VERSION
    session_id: str
    epoch: int
    """higher than any that the session had"""
    server_version: str
    policy: PolicyInfo
    dt_ns: int
    """nanoseconds between two control steps"""
    max_in_flight: int
    """plans at a time"""
    ping_interval_ms: int
    """how often the client should ping"""
    resumed: bool
    """False: the frame memory is fresh"""
    next_sequence: int
    """the smallest sequence number that the session takes"""
    resume_within_ms: int
    """how long after the end of this stream its session can be resumed"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlObservation(Observation):
    """An observation on a stream. `session_id` and `policy` are None: the stream has them.

    An empty `instruction` keeps the current one.
    """

    sent_mono_ns: int = 0
    """on the client's monotonic clock; 0: not stated"""
    prev_chunk_id: str = ""
    """the chunk that the robot executes; empty: none"""
    prev_chunk_next_index: int = 0
    """its first action that is not executed yet"""
    traceparent: str = ""
    """W3C trace context of this observation at the client; empty: none. One that is malformed is ignored"""


class HoldReason(Enum):
    """Why a robot holds its position."""

    NO_CHUNK = "no_chunk"
    LINK_LOST = "link_lost"
    ARM_FAULT = "arm_fault"
    OPERATOR = "operator"
    LIMIT = "limit"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionReport:
    """What the robot executed since its last report. The server counts it and shows it; it changes no plan."""

    chunk_id: str = ""
    executed_from_step: int = 0
    executed_to_step: int = 0
    """exclusive"""
    clamped_steps: int = 0
    """of these steps: those that the client's own limits changed"""
    hold_reason: HoldReason | None = None
    """None: the robot does not hold"""
    faults: tuple[str, ...] = ()
    tracking_error: float = 0.0
    """largest distance of a joint from its command, in fractions of the action's range"""
    chunk_age_ms: float = 0.0
    """from the capture of the images to the first action of the chunk"""
    seam_jump: float = 0.0
    """at the change of chunks, in fractions of the action's range"""
    starved_steps: int = 0
    """steps since the last report without an action of a chunk"""


class DropReason(Enum):
    """Why no plan was made from an observation."""

    SUPERSEDED = "superseded"
    """a newer observation came before its plan began"""
    TOO_OLD = "too_old"
    """its deadline passed before its plan began, or no plan could meet it"""
    OVERLOADED = "overloaded"
    """the server has no capacity for it"""
    RESET = "reset"
    """a reset came after it, or its epoch is an older one"""
    DRAINING = "draining"
    """the server stops"""


@dataclass(frozen=True, slots=True)
class ObservationDropped:
    """No plan is made from this observation."""

    sequence: int
    reason: DropReason
    by_sequence: int = 0
    """of the newer observation; 0: none"""
    epoch: int = 0
    """of the observation"""
    retry_after_ms: int = 0
    """when a new one may be planned; 0: not known"""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamError:
    """A failure on the stream. Only a fatal one ends the stream."""

    name: str
    """such as `sequence-conflict`"""
    message: str
    sequence: int | None = None
    """of the observation; None when the failure is not of one"""
    epoch: int = 0
    field: str = ""
    """set for bad input, with `expected` and `actual`"""
    expected: str = ""
    actual: str = ""
    retryable: bool = False
    retry_after_ms: int = 0
    fatal: bool = False
    error_id: str = ""
    """under which the server logged it"""
    facts: Mapping[str, str] = field_of(default_factory=dict)
    """what else is known of it, by the names of the error's attributes"""

    def error(self) -> WavserveError:
        """The failure as an error of the tree. A WavserveError for a name that this version does not know."""
        facts: dict[str, object] = {**self.facts, "retry_after_s": self.retry_after_ms / 1e3}
        facts |= {"field": self.field, "expected": self.expected, "actual": self.actual} if self.field else {}
        return rebuild_served(self.name, self.message, facts, self.error_id or None, self.retryable)


@dataclass(frozen=True, slots=True)
class Ping:
    """A question whether the link is alive."""

    id: int
    client_mono_ns: int = 0


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to a ping. The first two fields are the ping's; the times are on the server's monotonic clock."""

    id: int
    client_mono_ns: int
    server_recv_ns: int
    server_send_ns: int


@dataclass(frozen=True, slots=True)
class ResetStream:
    """Forgets the frame memory and begins a new epoch. Plans of the old epoch are dropped."""

    id: int = 0


@dataclass(frozen=True, slots=True)
class ResetAck:
    """The answer to a reset: the new epoch, and the smallest sequence number that it takes."""

    id: int
    epoch: int
    next_sequence: int


@dataclass(frozen=True, slots=True)
class Bye:
    """The client ends the stream in order."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class GoAway:
    """The server stops: it makes no more plans on this stream."""

    reconnect_within_ms: int
    reason: str = ""


ClientMessage = Hello | ControlObservation | ExecutionReport | Ping | ResetStream | Bye
ServerMessage = Welcome | ActionChunk | ObservationDropped | StreamError | Pong | ResetAck | GoAway


@dataclass(frozen=True, slots=True, kw_only=True)
class RobotStatus:
    """A robot with a living stream, as onlookers see it: no session id and no image. Counts begin with the stream."""

    robot_id: str
    embodiment: str
    client: str
    """name and version"""
    peer: str
    """address"""
    epoch: int
    connected_s: float
    instruction: str
    observations: int
    chunks: int
    dropped: int
    errors: int
    plan_ms_p50: float
    """of the latest chunks, from receipt to answer; 0 before the first"""
    plan_ms_p95: float
    last_chunk: ActionChunk | None
    """without session id, iterations and imagined frames; None: none yet"""
    last_chunk_age_s: float
    last_report: ExecutionReport | None
    """None: none yet"""
