"""What crosses a wire, before either wire's spelling: an observation in, a chunk of actions or a policy's facts out.

Both edges, `wire` and the robot's clients share these types, so the edges differ in spelling only. Nothing in an
`Observation` is checked; `types.PlanRequest` is the checked form. Knows neither HTTP, protobuf nor Pillow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from wavserve.core.spec import CameraSpec, PlannerBounds, PlannerConfig
from wavserve.core.types import Array, Receipt, RequestHeader

DEADLINE_KEY = "x-deadline-ms"
"""HTTP header and gRPC metadata: the request's deadline_ms, for a refusal before the body is read."""
ENCODINGS = ("raw_rgb8", "raw_bgr8", "jpeg", "png")
"""How an image may travel; raw is `height * width * 3` bytes, row-major."""


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """One camera's picture as it travels. Sizes are in pixels; 0 means "not stated", which raw images may not do."""

    camera: str
    encoding: str
    """one of ENCODINGS; anything else is refused"""
    data: bytes
    height: int = 0
    width: int = 0
    channels: int = 0
    captured_mono_ns: int = 0
    """the sender's monotonic clock; 0 = not stated"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation(RequestHeader):
    """What a robot sent, unchecked."""

    images: tuple[EncodedImage, ...]
    state: tuple[float, ...]
    """`[S]`, in the units the policy declares"""
    deadline_ms: int | None = None
    """milliseconds from receipt; None: no deadline"""


HEADER_FIELDS = ("instruction", "sequence", "control_step", "executed_steps", "imagine_chunks")
"""Fields of a `RequestHeader` that every wire has under the same name and with the same default."""
EMPTY_IS_NONE = ("session_id", "policy")
"""Texts that are empty on a wire where they are None here."""
OPTIONAL_FIELDS = ("seed", "deadline_ms")
"""Numbers that a wire may leave out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionChunk:
    """An answer: action `i` belongs to control step `first_control_step + i`. The policy makes it; the edge adds its
    clock."""

    session_id: str
    sequence: int
    first_control_step: int
    dt_ns: int
    """nanoseconds between two control steps"""
    actions: Array
    """`[T, A]`, in the units the policy declares"""
    valid_until_step: int
    receipt: Receipt
    imagined: Mapping[str, tuple[EncodedImage, ...]] = field(default_factory=dict)
    """camera -> imagined future frames as PNG, in time order; empty unless asked for"""
    chunk_id: str
    """the same for a retry"""
    warnings: tuple[str, ...] = ()
    captured_mono_ns: int = 0
    """echo of the oldest image's capture time; 0: none was stated. Filled by the edge, as are the next two"""
    server_recv_ns: int = 0
    """the server's monotonic clock, as is `server_send_ns`"""
    server_send_ns: int = 0


@dataclass(frozen=True, slots=True)
class Vector:
    """Names and units of a state or an action, one entry a dimension."""

    names: tuple[str, ...]
    units: tuple[str, ...]


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
    max_instruction_bytes: int
    defaults: PlannerConfig
    bounds: PlannerBounds
    notes: str
    max_message_bytes: int
