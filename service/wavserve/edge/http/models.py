"""The HTTP bodies as pydantic models: what `/docs` shows, and the types a request must have.

Requests are read through `PlanBody` and `PlanFacts`; the answers' models document what `http_answers` writes, and a
test, not the running server, holds them to it. Ranges and the policy's own rules `validate` judges, for both edges.
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
"""The first wrong item is named; half a million complaints would be made for nothing."""

Options = Annotated[dict[str, Any], WithJsonSchema(TypeAdapter(PlannerConfig).json_schema())]
"""Checked by `options.merge_options`, which both edges call; here they are only described."""


class Body(BaseModel):
    """Nothing is converted and nothing unknown is let through."""

    model_config = ConfigDict(extra="forbid", strict=True)


class ImageFacts(Body):
    """What is said of a picture whose bytes are a part of their own (multipart)."""

    camera: str = Field(description="a camera of the policy, see GET /v1/policies")
    encoding: str | None = Field(
        default=None,
        description="needed when the part is application/octet-stream",
        json_schema_extra={"enum": [*ENCODINGS, None]},
    )
    height: int = Field(default=0, description="pixels; required for raw, checked otherwise; 0 = not stated")
    width: int = Field(default=0, description="likewise")
    channels: int = Field(default=0, description="3; 0 = not stated")
    captured_mono_ns: int = Field(default=0, description="the sender's monotonic clock; echoed, never compared")


class ImageBody(ImageFacts):
    """A picture with its bytes (JSON)."""

    encoding: str = Field(
        description="raw is height * width * 3 bytes, row-major", json_schema_extra={"enum": [*ENCODINGS]}
    )
    data: str = Field(description="the bytes in base64")


class PlanFacts(Body):
    """The `request` part of a multipart request: everything but the pictures' bytes."""

    instruction: str = Field(description="what to do; UTF-8, limited by the policy's max_instruction_bytes")
    state: Numbers = Field(description="the robot's state, in the policy's order and units")
    images: Annotated[tuple[ImageFacts, ...], FailFast(), Strict(False)] = Field(  # JSON has lists, no tuples
        default=(),
        max_length=MAX_IMAGES,
        description="only what a part's content type does not say: the encoding and size of raw pictures",
    )
    session_id: str | None = Field(default=None, description="null or empty opens a session; the answer tells its id")
    sequence: int = Field(default=0, description="strictly increasing in a session; same number and content is a retry")
    control_step: int = Field(default=0, description="index of the next command when the pictures were taken")
    executed_steps: int = Field(default=0, description="steps executed since the previous accepted observation")
    policy: str | None = Field(default=None, description="null or empty is whichever this server serves")
    planner: Options = Field(default_factory=dict, description="planner options over the policy's defaults")
    seed: int | None = Field(default=None, description="below 2^63; null: drawn and reported")
    deadline_ms: int | None = Field(default=None, description="milliseconds from receipt; null: none")
    imagine_chunks: int = Field(default=0, description="also return this many chunks of imagined future frames")


class PlanBody(PlanFacts):
    """One observation of a robot."""

    model_config = ConfigDict(json_schema_extra={"example": _EXAMPLE})
    images: Annotated[tuple[ImageBody, ...], FailFast(), Strict(False)] = Field(
        max_length=MAX_IMAGES, description="one of each camera of the policy"
    )


class IterationAnswer(Body):
    snr: list[list[float]] = Field(description="[N, M]; empty where nothing was scored")
    scores: list[float] = Field(description="[N]")
    video_elites: list[int] = Field(description="indices n, best first")
    value_elites: list[int] = Field(description="rows n * M + m, best first")
    video_std: float
    value_std: float
    moved: float = Field(description="root mean square change of the Gaussian that moved more")


class ReceiptAnswer(Body):
    policy: str
    policy_digest: str
    untrained: bool = Field(description="random weights: never run these actions on a robot")
    seed: int
    sequence: int
    planner: Options = Field(description="as asked for, after defaults")
    iterations_done: int = Field(description="K spent")
    stopped: Literal["done", "out_of_time", "settled"] = Field(description="why planning went no further")
    warm_start: bool = Field(description="whether it began from the session's last plan")
    deadline: Literal["none", "met", "met_degraded"]
    slack_ms: float | None
    iterations: list[IterationAnswer]
    stage_ms: dict[str, float]
    value_estimate: float | None
    digests: dict[str, str] = Field(description="sha256 of the inputs")
    version: str


class FramesAnswer(Body):
    camera: str
    frames: list[ImageBody] = Field(description="PNG, in time order")


class ChunkAnswer(Body):
    """A chunk of actions: action i belongs to control step first_control_step + i."""

    session_id: str
    sequence: int
    first_control_step: int
    horizon: int
    action_dim: int
    dt_ns: int
    actions: list[list[float]] = Field(description="[horizon, action_dim], in the policy's order and units")
    valid_until_step: int = Field(description="refuse the chunk from this step on")
    receipt: ReceiptAnswer
    imagined: list[FramesAnswer]
    chunk_id: str
    captured_mono_ns: int
    server_recv_ns: int
    server_send_ns: int
    warnings: list[str]


class CameraAnswer(Body):
    name: str
    height: int
    width: int
    resize: str = Field(description="`exact`, or the filter used on other sizes")


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
    horizon: int
    control_hz: float
    history_frames: int
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
    """RFC 9457 problem details; the second half is there where it applies."""

    type: str = Field(description="urn:wavserve:problem:<name>")
    title: str
    status: int
    detail: str
    instance: str = Field(description="the error's id; the log has the error under it")
    retryable: bool = Field(default=False, description="the same request may succeed later")
    retry_after_s: float | None = None
    predicted_s: float | None = Field(default=None, description="when the plan would have been ready, from now")
    deadline: Literal["missed"] | None = Field(default=None, description="beside what was spent in vain:")
    slack_ms: float | None = Field(default=None, description="what was left of the deadline: negative")
    iterations_done: int | None = Field(default=None, description="K spent")
    num_video_samples: int | None = Field(default=None, description="N of each")
    num_value_samples: int | None = Field(default=None, description="M of each")
    field: str | None = Field(default=None, description="dotted path of the field that was refused")
    expected: str | None = None
    actual: str | None = None
