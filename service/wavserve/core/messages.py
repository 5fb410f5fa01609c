"""What crosses a wire, before and after either wire's spelling of it: a submission in, a chunk or a policy's facts out.

Both edges, `wire` and the robot client meet here, so that the edges differ in spelling only. Nothing in a `Submission`
has been checked yet; `types.PlanRequest` is what it becomes. Knows neither HTTP, protobuf nor Pillow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from wavserve.core.spec import CameraSpec, PlannerBounds, PlannerConfig
from wavserve.core.types import Array, Receipt

DEADLINE_KEY = "x-deadline-ms"
"""HTTP header and gRPC metadata: the request's deadline_ms, for who wants to be refused before the body is read."""
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


@dataclass(frozen=True, slots=True)
class Submission:
    """What a robot sent, unchecked; the fields are those of `types.PlanRequest`."""

    images: tuple[EncodedImage, ...]
    state: tuple[float, ...]
    """`[S]`, in the units the policy declares"""
    instruction: str
    session_id: str | None = None
    sequence: int = 0
    control_step: int = 0
    executed_steps: int = 0
    policy: str | None = None
    options: Mapping[str, object] = field(default_factory=dict)
    seed: int | None = None
    deadline_ms: int | None = None
    """milliseconds from receipt"""
    imagine_chunks: int = 0


@dataclass(frozen=True, slots=True)
class Chunk:
    """An answer: action `i` belongs to control step `first_control_step + i`."""

    session_id: str
    sequence: int
    first_control_step: int
    dt_ns: int
    actions: Array
    """`[T, A]`, in the units the policy declares"""
    valid_until_step: int
    receipt: Receipt
    imagined: Mapping[str, tuple[EncodedImage, ...]]
    """camera -> imagined future frames as PNG, in time order; empty unless asked for"""
    chunk_id: str
    captured_mono_ns: int
    """echo of the oldest image's capture time; 0 when none was stated"""
    server_recv_ns: int
    """the server's monotonic clock, as is `server_send_ns`"""
    server_send_ns: int
    warnings: tuple[str, ...] = ()


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
