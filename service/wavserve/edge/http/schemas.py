"""The HTTP requests as pydantic models: what `/docs` shows, and the types that a request must have.

`PlanBody` and `PlanFields` parse requests. `validate` checks ranges and the policy's own rules, for both edges, and
`contract` documents them. `answer_schemas` has the answers.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, FailFast, Field, Strict, TypeAdapter, WithJsonSchema

from wavserve.core.messages import ENCODINGS
from wavserve.core.spec import PlannerConfig
from wavserve.edge.http.numbers import Int64, Nanoseconds
from wavserve.wire import MAX_IMAGES, MAX_STATE_NUMBERS

BASE64_PATTERN = "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"

Numbers = Annotated[list[float], FailFast(), Field(max_length=MAX_STATE_NUMBERS)]
"""Validation stops at the first wrong item to limit work."""

Base64 = Annotated[bytes, WithJsonSchema({"type": "string", "contentEncoding": "base64", "pattern": BASE64_PATTERN})]
"""`bounded_json` gives the text's characters as bytes."""

Options = Annotated[dict[str, Any], WithJsonSchema(TypeAdapter(PlannerConfig).json_schema())]
"""The schema only documents the options. `options.merge_options` checks them, for both edges."""


class Body(BaseModel):
    """Values are not converted, and unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


class ImageFields(Body):
    """Metadata of an image sent as a separate multipart part."""

    camera: str = Field(description="Name of a camera of the policy; see GET /v1/policies.")
    encoding: str | None = Field(
        default=None,
        description="Required when the part is application/octet-stream. raw_rgb8 and raw_bgr8 have "
        "height * width * 3 bytes, rows of RGB or BGR pixels. "
        "jpeg and png are RGB or gray images of 8 bits a channel, upright and opaque.",
        json_schema_extra={"enum": [*ENCODINGS, None]},
    )
    height: int = Field(
        default=0,
        description="In pixels; 0 means not stated. Required for raw encodings. For jpeg and png it must agree with "
        "the image's header.",
    )
    width: int = Field(default=0, description="Same rules as for height.")
    channels: int = Field(default=0, description="Must be 3, or 0 for not stated.")
    captured_mono_ns: Nanoseconds = Field(
        default=0,
        description="Capture time in nanoseconds on the sender's monotonic clock; 0 means not stated. "
        "The answer repeats the oldest one. The server never compares it with another clock.",
    )


class ImageBody(ImageFields):
    """An image with its bytes (JSON)."""

    encoding: str = Field(
        description="raw_rgb8 and raw_bgr8 have height * width * 3 bytes, rows of RGB or BGR pixels. "
        "jpeg and png are RGB or gray images of 8 bits a channel, upright and opaque.",
        json_schema_extra={"enum": [*ENCODINGS]},
    )
    data: Base64 = Field(description="The image's bytes in base64.")


class RtcFields(Body):
    """Real-time chunking: the new chunk continues the actions that the robot executes while the plan is made.

    inference_delay <= executed_steps <= horizon - inference_delay.
    """

    mode: str | None = Field(default=None, description="One of the policy's rtc_modes. Null: the policy's default.")
    prefix_attention_schedule: str | None = Field(
        default=None,
        description="Weights of the left-over between inference_delay and execution_horizon. Null: the policy's "
        "default.",
    )
    max_guidance_weight: float | None = Field(
        default=None, description="Largest weight of the guidance. Null: the policy's default."
    )
    execution_horizon: int | None = Field(
        default=None, description="In steps: up to here the left-over guides the flow. Null: the policy's default."
    )
    inference_delay: int = Field(
        default=0,
        description="In consumed steps: the actions that the robot executes between the observation and the arrival "
        "of its chunk. At most as many as prev_chunk_left_over has.",
    )
    prev_chunk_left_over: Annotated[list[Numbers], FailFast(), Field(max_length=MAX_STATE_NUMBERS)] = Field(
        default_factory=list,
        description="[n, action_dim], in the policy's order and units: the actions of the previous chunk from "
        "control_step on. Empty at the first chunk.",
    )


class PlanFields(Body):
    """The `request` part of a multipart request: everything but the images' bytes."""

    instruction: str = Field(description="The task, in UTF-8. At most the policy's max_instruction_bytes long.")
    state: Numbers = Field(description="The robot's state, in the policy's order and units.")
    images: Annotated[tuple[ImageFields, ...], FailFast(), Strict(False)] = Field(  # JSON has lists, no tuples
        default=(),
        max_length=MAX_IMAGES,
        description="Required only for parts of type application/octet-stream: the encoding, and the size of a raw "
        "image.",
    )
    session_id: str | None = Field(
        default=None, description="Null or empty opens a session, and the answer gives its id."
    )
    sequence: Int64 = Field(
        default=0,
        description="Must increase with every observation of a session. Repeating the latest sequence number with "
        "the same content is a retry. It gets the same actions. Imagined frames are not kept for it.",
    )
    control_step: Int64 = Field(default=0, description="Index of the next command when the images were captured.")
    executed_steps: int = Field(
        default=0, description="Control steps executed since the previous accepted observation of the session."
    )
    policy: str | None = Field(default=None, description="Null or empty: the served policy.")
    planner: Options = Field(
        default_factory=dict,
        description="Planner options that replace the policy's defaults, within its bounds. Mode off has no "
        "iterations, and best_of_n one at most.",
    )
    seed: Int64 | None = Field(
        default=None, description="Below 2^63. With null the server draws a seed; the receipt reports it."
    )
    deadline_ms: int | None = Field(
        default=None, description="Deadline in milliseconds from receipt. Null means no deadline."
    )
    imagine_chunks: int = Field(default=0, description="Also return this many chunks of imagined future frames.")
    rtc: RtcFields | None = Field(default=None, description="Real-time chunking. Null: the policy's default.")


class PlanBody(PlanFields):
    """One observation of a robot."""

    images: Annotated[tuple[ImageBody, ...], FailFast(), Strict(False)] = Field(
        max_length=MAX_IMAGES, description="One image of each camera of the policy."
    )
