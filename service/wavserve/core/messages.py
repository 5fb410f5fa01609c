"""The data of the contract, independent of its encoding: an observation in, an action chunk or a policy's facts out.

HTTP and gRPC share these types and differ only in how they encode them. Nothing in an `Observation` is checked;
`types.PlanRequest` is the checked form. Knows neither HTTP, protobuf nor Pillow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from wavserve.core.errors import BrokenLimit
from wavserve.core.spec import ActionKind, CameraSpec, Hold, LimitsSpec, PlannerBounds, PlannerConfig, RtcMode, RtcSpec
from wavserve.core.types import Array, Receipt, RequestFields

DEADLINE_KEY = "x-deadline-ms"
"""HTTP header and gRPC metadata key of deadline_ms. It lets a server refuse before it reads the body."""
MAX_JSON_INTEGER = 2**53 - 1
"""The largest integer that every JSON library reads exactly. JavaScript and others read numbers as float64."""
MAX_INT64 = 2**63 - 1
"""The largest seed, sequence, control step and time of the contract."""
ENCODINGS = ("raw_rgb8", "raw_bgr8", "jpeg", "png")
"""The encodings of an image. A raw image has `height * width * 3` bytes, row by row, as RGB or BGR."""


def json_integer(value: int) -> int | str:
    """An integer as JSON carries it: a decimal text where a float64 might round it."""
    return value if abs(value) <= MAX_JSON_INTEGER else str(value)


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """One camera's encoded image. Sizes are in pixels; 0 means "not given". A raw image must give its size."""

    camera: str
    encoding: str
    """one of ENCODINGS; the server refuses any other"""
    data: bytes
    height: int = 0
    width: int = 0
    channels: int = 0
    captured_mono_ns: int = 0
    """capture time on the sender's monotonic clock; 0: not given"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation(RequestFields):
    """A robot's request, unchecked."""

    images: tuple[EncodedImage, ...]
    state: tuple[float, ...]
    """`[S]`, in the units the policy declares"""
    deadline_ms: int | None = None
    """milliseconds from receipt; None: no deadline"""


PLAIN_FIELDS = ("instruction", "sequence", "control_step", "executed_steps", "imagine_chunks")
"""Fields of a `RequestFields` that have the same name and the same default on every wire."""
EMPTY_IS_NONE = ("session_id", "policy")
"""Text fields. A wire sends an empty text where the value is None here."""
OPTIONAL_FIELDS = ("seed", "deadline_ms")
"""Number fields that a wire may omit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionChunk:
    """The answer to an observation: action `i` belongs to control step `first_control_step + i`.

    The policy makes the chunk; the edge fills the last three fields.
    """

    session_id: str
    epoch: int = 0
    """of the session, in Control; 0 elsewhere"""
    sequence: int
    first_control_step: int
    dt_ns: int
    """nanoseconds between two control steps"""
    actions: Array
    """`[T, A]`, in the units the policy declares"""
    valid_until_step: int
    """from this control step on, a robot must refuse the chunk"""
    receipt: Receipt
    imagined: Mapping[str, tuple[EncodedImage, ...]] = field(default_factory=dict)
    """camera -> imagined future frames as PNG, in time order; empty unless requested"""
    chunk_id: str
    """a retry has the same id"""
    warnings: tuple[str, ...] = ()
    cut: BrokenLimit | None = None
    """the step at which the server cut the chunk, because it breaks a limit of the policy; None: the chunk is whole"""
    fresh_memory: bool = False
    """whether the plan saw no earlier frame of this session"""
    frozen_prefix_steps: int = 0
    """first actions that equal those of the request's left-over, bit for bit"""
    captured_mono_ns: int = 0
    """capture time of the oldest image, as the robot sent it; 0: none was given"""
    server_recv_ns: int = 0
    """when the request was received, on the server's monotonic clock"""
    server_send_ns: int = 0
    """when the answer was ready, on the same clock"""


@dataclass(frozen=True, slots=True)
class Vector:
    """Names and units of a state or an action, one entry per dimension."""

    names: tuple[str, ...]
    units: tuple[str, ...]
    statistics_digest: str = ""
    """SHA-256 of the normalisation statistics; empty: not stated"""
    limits: LimitsSpec = field(default_factory=LimitsSpec)
    """of an action; a state has none"""
    hold: tuple[Hold, ...] = ()
    """of an action: what a hold sends in each dimension (`ActionSpec.hold`); empty: the last command everywhere"""


@dataclass(frozen=True, slots=True)
class PolicyInfo:
    """What a robot needs to know before its first request."""

    name: str
    digest: str
    untrained: bool
    cameras: tuple[CameraSpec, ...]
    state: Vector
    action: Vector
    horizon: int
    """T, steps"""
    control_hz: float
    history_frames: int
    """Fmem, latent frames in a session's memory"""
    max_instruction_bytes: int
    defaults: PlannerConfig
    bounds: PlannerBounds
    notes: str
    max_message_bytes: int
    embodiment: str
    """the kind of robot; empty: not declared"""
    action_kind: ActionKind
    rtc: RtcSpec
    """the defaults of real-time chunking"""
    rtc_modes: tuple[RtcMode, ...]
    """the modes that a request may ask for"""
    max_trained_delay: int
    """in steps, of mode `rtc_trained`; 0: the policy was not trained for it"""
    golden_digest: str
    """SHA-256 of the plan that the server checks before it is ready; empty: none"""
