"""The HTTP bodies as pydantic models: what `/docs` shows, and the types that a request must have.

Requests are parsed by `PlanBody` and `PlanFields`. The models of answers only document the JSON; a test compares them
with it, the running server does not. `validate` checks ranges and the policy's own rules, for both edges.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field, JsonValue, Strict, TypeAdapter, WithJsonSchema

from wavserve.core.messages import ENCODINGS
from wavserve.core.spec import PlannerBounds, PlannerConfig
from wavserve.wire import MAX_IMAGES, MAX_STATE_NUMBERS

_EXAMPLE: JsonValue = {
    "instruction": "pick up the alphabet soup and place it in the basket",
    "state": [-0.15, -0.01, 0.25, 3.14, 0.0, -0.09, 0.04, -0.04],
    "images": [
        {"camera": "agentview", "encoding": "jpeg", "data": "/9j/4AAQSkZJRg..."},
        {"camera": "wrist", "encoding": "jpeg", "data": "/9j/4AAQSkZJRg..."},
    ],
    "planner": {"num_iterations": 1},
    "deadline_ms": 2000,
}

Numbers = Annotated[list[float], FailFast(), Field(max_length=MAX_STATE_NUMBERS)]
"""Validation stops at the first wrong item. Half a million errors would be built for nothing."""

Options = Annotated[dict[str, Any], WithJsonSchema(TypeAdapter(PlannerConfig).json_schema())]
"""Described here only. `options.merge_options` checks them, for both edges."""


class Body(BaseModel):
    """Values are not converted, and unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


class ImageFields(Body):
    """Facts about an image whose bytes are in a part of their own (multipart)."""

    camera: str = Field(description="Name of a camera of the policy; see GET /v1/policies.")
    encoding: str | None = Field(
        default=None,
        description="Required when the part is application/octet-stream.",
        json_schema_extra={"enum": [*ENCODINGS, None]},
    )
    height: int = Field(
        default=0,
        description="In pixels; 0 means not stated. Required for raw encodings; else it must agree with the image.",
    )
    width: int = Field(default=0, description="Same rules as for height.")
    channels: int = Field(default=0, description="Must be 3, or 0 for not stated.")
    captured_mono_ns: int = Field(
        default=0,
        description="Capture time in nanoseconds on the sender's monotonic clock; 0 means not stated. "
        "The answer repeats the oldest one. The server never compares it with another clock.",
    )


class ImageBody(ImageFields):
    """An image with its bytes (JSON)."""

    encoding: str = Field(
        description="A raw image has height * width * 3 bytes, row-major.", json_schema_extra={"enum": [*ENCODINGS]}
    )
    data: str = Field(description="The image's bytes in base64.")


class PlanFields(Body):
    """The `request` part of a multipart request: everything but the images' bytes."""

    instruction: str = Field(description="The task, in UTF-8. At most the policy's max_instruction_bytes long.")
    state: Numbers = Field(description="The robot's state, in the policy's order and units.")
    images: Annotated[tuple[ImageFields, ...], FailFast(), Strict(False)] = Field(  # JSON has lists, no tuples
        default=(),
        max_length=MAX_IMAGES,
        description="Needed only for what a part's content type does not say: encoding and size of raw images.",
    )
    session_id: str | None = Field(
        default=None, description="Null or empty opens a session, and the answer gives its id."
    )
    sequence: int = Field(
        default=0,
        description="Must increase with every observation of a session. "
        "The same number with the same content is a retry, and the server repeats its answer.",
    )
    control_step: int = Field(default=0, description="Index of the next command when the images were captured.")
    executed_steps: int = Field(
        default=0, description="Control steps executed since the previous accepted observation of the session."
    )
    policy: str | None = Field(default=None, description="Null or empty accepts whichever policy this server serves.")
    planner: Options = Field(
        default_factory=dict, description="Planner options that replace the policy's defaults, within its bounds."
    )
    seed: int | None = Field(
        default=None, description="Below 2^63. With null the server draws a seed; the receipt reports it."
    )
    deadline_ms: int | None = Field(
        default=None, description="Deadline in milliseconds from receipt. Null means no deadline."
    )
    imagine_chunks: int = Field(default=0, description="Also return this many chunks of imagined future frames.")


class PlanBody(PlanFields):
    """One observation of a robot."""

    model_config = ConfigDict(json_schema_extra={"example": _EXAMPLE})
    images: Annotated[tuple[ImageBody, ...], FailFast(), Strict(False)] = Field(
        max_length=MAX_IMAGES, description="One image of each camera of the policy."
    )


class IterationAnswer(Body):
    """One planning iteration over N video samples with M value samples each."""

    snr: list[list[float]] = Field(description="SNR of each value sample, [N, M]. Empty when nothing was scored.")
    scores: list[float] = Field(description="Score of each video sample, [N]: the best SNR of its value samples.")
    video_elites: list[int] = Field(description="Indices n of the elite video samples, best first.")
    value_elites: list[int] = Field(description="Indices n * M + m of the elite value samples, best first.")
    video_std: float = Field(description="Mean standard deviation of the video Gaussian after the iteration.")
    value_std: float = Field(description="Mean standard deviation of the value Gaussian after the iteration.")
    moved: float = Field(
        description="Root mean square change of mean and standard deviation, of the Gaussian that changed more."
    )


class ReceiptAnswer(Body):
    """How the plan was made."""

    policy: str
    policy_digest: str
    untrained: bool = Field(description="True for random weights. Never run these actions on a robot.")
    seed: int
    sequence: int
    planner: Options = Field(description="The requested options, with the policy's defaults for the others.")
    iterations_done: int = Field(description="Number of planning iterations (K) that were done.")
    stopped: Literal["done", "out_of_time", "settled"] = Field(
        description="Why planning stopped. done: all requested iterations were done; out_of_time: another iteration "
        "would have made a plan late; settled: the last iteration changed the Gaussians by less than early_stop."
    )
    warm_start: bool = Field(description="Whether the plan began from the session's last plan.")
    deadline: Literal["none", "met", "met_degraded"] = Field(
        description="none: the request had no deadline; met_degraded: met with fewer iterations than requested."
    )
    slack_ms: float | None = Field(description="Milliseconds left at the deadline. Null without a deadline.")
    iterations: list[IterationAnswer]
    stage_ms: dict[str, float] = Field(description="Milliseconds spent in each stage.")
    value_estimate: float | None = Field(description="SNR of the chosen plan. Null unless estimate_value is set.")
    digests: dict[str, str] = Field(description="SHA-256 of each input.")
    version: str = Field(description="Version of wavserve.")


class FramesAnswer(Body):
    """The imagined future of one camera."""

    camera: str
    frames: list[ImageBody] = Field(description="PNG images in time order.")


class ChunkAnswer(Body):
    """A chunk of actions: action i belongs to control step first_control_step + i."""

    session_id: str
    sequence: int
    first_control_step: int
    horizon: int
    action_dim: int
    dt_ns: int = Field(description="Nanoseconds between two control steps.")
    actions: list[list[float]] = Field(description="[horizon, action_dim], in the policy's order and units.")
    valid_until_step: int = Field(description="From this control step on, the robot must refuse the chunk.")
    receipt: ReceiptAnswer
    imagined: list[FramesAnswer] = Field(description="Empty unless imagine_chunks asked for imagined frames.")
    chunk_id: str = Field(description="The same for a retry.")
    captured_mono_ns: int = Field(description="The oldest capture time among the request's images; 0: none was stated.")
    server_recv_ns: int = Field(description="When the request arrived, on the server's monotonic clock.")
    server_send_ns: int = Field(description="When the answer was ready, on the server's monotonic clock.")
    warnings: list[str]


class CameraAnswer(Body):
    name: str
    height: int
    width: int
    resize: str = Field(description="`exact`, or the filter that resizes images of another size.")


class VectorAnswer(Body):
    names: list[str]
    units: list[str]


class PolicyAnswer(Body):
    name: str
    digest: str
    untrained: bool
    cameras: list[CameraAnswer]
    state: VectorAnswer
    action: VectorAnswer
    horizon: int = Field(description="Control steps in one chunk of actions.")
    control_hz: float
    history_frames: int = Field(description="Latent frames in a session's frame memory.")
    max_instruction_bytes: int
    defaults: Options
    bounds: Annotated[dict[str, int], WithJsonSchema(TypeAdapter(PlannerBounds).json_schema())]
    notes: str
    max_message_bytes: int


class PoliciesAnswer(Body):
    policies: list[PolicyAnswer]


class ResetAnswer(Body):
    session_id: str


class HealthAnswer(Body):
    status: Literal["alive", "ready"]


class Problem(Body):
    """RFC 9457 problem details. Fields after `retryable` are present only where they apply."""

    type: str = Field(description="`urn:wavserve:problem:<name>`, with the error's name.")
    title: str
    status: int
    detail: str
    instance: str = Field(description="Id of this failure. The server's log has the failure under the same id.")
    retryable: bool = Field(default=False, description="Whether the same request may succeed later.")
    retry_after_s: float | None = Field(default=None, description="Seconds until a retry may be admitted.")
    predicted_s: float | None = Field(
        default=None, description="Seconds from now until the plan would have been ready; the reason of the refusal."
    )
    deadline: Literal["missed"] | None = Field(
        default=None,
        description="Set when the deadline passed before the plan was ready. "
        "The next four fields say how late it was and what was computed.",
    )
    slack_ms: float | None = Field(
        default=None, description="Milliseconds left at the deadline; negative, because it has passed."
    )
    iterations_done: int | None = Field(default=None, description="Planning iterations (K) that were done.")
    num_video_samples: int | None = Field(default=None, description="Video samples (N) of each iteration.")
    num_value_samples: int | None = Field(default=None, description="Value samples (M) of each video sample.")
    field: str | None = Field(default=None, description="Dotted path of the refused field.")
    expected: str | None = Field(default=None, description="What the field must be.")
    actual: str | None = Field(default=None, description="What the request has there.")
