"""The HTTP answers as pydantic models, for `/docs`.

The server does not use them to answer; a test compares them with its answers.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, WithJsonSchema

from wavserve.core.spec import Hold, PlannerBounds, PrefixSchedule, RtcMode
from wavserve.edge.http.numbers import Answered
from wavserve.edge.http.schemas import Body, Options


class IterationAnswer(Body):
    """One planning iteration over N video samples with M value samples each."""

    snr: list[list[float]] = Field(
        description="SNR of each value sample, [N, M]; mean value in modes mean and best_of_n. Empty when nothing was "
        "scored."
    )
    scores: list[float] = Field(description="Score of each video sample, [N]: the highest among its value samples.")
    video_elites: list[int] = Field(description="Indices n of the elite video samples, best first.")
    value_elites: list[int] = Field(description="Indices n * M + m of the elite value samples, best first.")
    video_std: float = Field(description="Mean standard deviation of the video Gaussian after the iteration.")
    value_std: float = Field(description="Mean standard deviation of the value Gaussian after the iteration.")
    moved: float = Field(
        description="Root mean square change of mean and standard deviation, of the Gaussian that changed more."
    )


class RtcAnswer(Body):
    """Settings of real-time chunking: the new chunk continues the actions that run while the plan is made."""

    mode: RtcMode
    prefix_attention_schedule: PrefixSchedule
    max_guidance_weight: float
    execution_horizon: int = Field(description="In steps: up to here the left-over guides the new chunk.")


class AppliedRtcAnswer(RtcAnswer):
    """The settings of one plan."""

    inference_delay: int = Field(description="In consumed steps.")


class ReceiptAnswer(Body):
    """Provenance of the plan."""

    policy: str = Field(description="Name of the policy.")
    policy_digest: str = Field(description="SHA-256 of the policy's files.")
    untrained: bool = Field(description="True for random weights. Never run these actions on a robot.")
    seed: Answered = Field(description="Below 2^53 when the server drew it.")
    sequence: Answered
    planner: Options = Field(description="The requested options, with the policy's defaults for the others.")
    iterations_done: int = Field(description="Number of planning iterations (K) that were done.")
    stopped: Literal["done", "out_of_time", "settled"] = Field(
        description="Why planning stopped. done: all requested iterations were done. out_of_time: admission granted "
        "no further iteration, because it would have made a plan late or other robots come first. settled: the last "
        "iteration changed both Gaussians by less than early_stop."
    )
    warm_start: bool = Field(description="Whether the plan began from the session's last plan.")
    deadline: Literal["none", "met", "met_degraded", "late"] = Field(
        description="none: the request had no deadline. met: in time; every requested iteration was done, or "
        "early_stop ended planning. met_degraded: in time, but admission granted fewer iterations than requested. "
        "late: committed by the deadline and answered after it; the session has advanced, and slack_ms is negative. "
        "A plan that is not committed by its deadline has no receipt."
    )
    slack_ms: float | None = Field(
        description="The deadline of this request minus the time of its answer, in milliseconds. Null without a "
        "deadline."
    )
    iterations: list[IterationAnswer]
    stage_ms: dict[str, float] = Field(
        description="Milliseconds by stage. `total` is the whole plan. Stages overlap, so their sum may exceed it."
    )
    value_estimate: float | None = Field(
        description="Highest score among M value samples of the chosen plan. Null unless estimate_value is set."
    )
    expected_return: float | None = Field(
        description="Mean return that those value samples predict, in the units of the training's returns. Null unless "
        "estimate_value is set, and where the policy declares no units (value_norm)."
    )
    digests: dict[str, str] = Field(
        description="SHA-256 by input: `images.CAMERA` (decoded), `state`, `instruction`, `left_over` (where one was "
        "sent), `memory`."
    )
    version: str = Field(description="Version of wavserve.")
    rtc: AppliedRtcAnswer | None = Field(
        description="Real-time chunking as applied, with the policy's defaults filled in. Null: off."
    )
    seam_jump: float | None = Field(
        description="Largest difference, in fractions of the action's range, between the new chunk and the left-over "
        "at step inference_delay. Null where the left-over has no such step."
    )


class FrameAnswer(Body):
    """An imagined image."""

    camera: str
    encoding: Literal["png"]
    data: str = Field(description="The image's bytes in base64.", json_schema_extra={"contentEncoding": "base64"})
    height: int = Field(description="In pixels.")
    width: int = Field(description="In pixels.")
    channels: int
    captured_mono_ns: Answered


class FramesAnswer(Body):
    """The imagined future of one camera."""

    camera: str
    frames: list[FrameAnswer] = Field(description="PNG images in time order.")


class CutAnswer(Body):
    """The step at which a chunk was cut, because it breaks a limit of the policy."""

    step: int = Field(description="Index of the first step that was cut.")
    dimension: int = Field(description="Index of the action's dimension.")
    name: str = Field(description="Name of the dimension.")
    limit: Literal["position", "velocity", "jerk"]
    bound: float = Field(description="In the dimension's unit, per second (velocity) or per second cubed (jerk).")
    value: float = Field(description="What the step would have had, in the same unit.")


class ChunkAnswer(Body):
    """A chunk of actions: action i belongs to control step first_control_step + i."""

    session_id: str
    sequence: Answered
    first_control_step: Answered
    horizon: int = Field(description="Number of actions; fewer than the policy's where the chunk was cut.")
    action_dim: int = Field(description="Numbers in one action.")
    dt_ns: Answered = Field(description="Nanoseconds between two control steps.")
    actions: list[list[float]] = Field(description="[horizon, action_dim], in the policy's order and units.")
    valid_until_step: Answered = Field(description="From this control step on, the robot must refuse the chunk.")
    receipt: ReceiptAnswer
    imagined: list[FramesAnswer] = Field(description="Empty unless imagine_chunks is set.")
    chunk_id: str = Field(description="The same for a retry.")
    captured_mono_ns: Answered = Field(
        description="The oldest capture time among the request's images; 0: none was stated."
    )
    server_recv_ns: Answered = Field(description="When the request arrived, on the server's monotonic clock.")
    server_send_ns: Answered = Field(description="When the answer was ready, on the server's monotonic clock.")
    warnings: list[str] = Field(description="Texts for people.")
    cut: CutAnswer | None = Field(
        description="Null when the chunk is whole. Else the server cut it before its first step that breaks a limit of "
        "the policy."
    )
    fresh_memory: bool = Field(description="Whether the plan saw no earlier frame of this session.")
    frozen_prefix_steps: int = Field(
        description="The first actions that equal those of prev_chunk_left_over, bit for bit."
    )


class CameraAnswer(Body):
    """A camera of the policy, with the size of its images in pixels."""

    name: str
    height: int
    width: int
    resize: str = Field(
        description="`exact` refuses images of another size. Any other value is the filter that resizes them."
    )
    orientation: str = Field(
        description="Of the images as sent: `as_captured`, or `rotated_180` from what the camera delivers."
    )


class LimitsAnswer(Body):
    """Kinematic limits of an action: one entry per dimension, or none at all. Null: that dimension is not checked."""

    position_low: list[float | None] = Field(description="In the dimension's unit.")
    position_high: list[float | None] = Field(description="In the dimension's unit.")
    velocity: list[float | None] = Field(description="Largest absolute value, in the unit per s.")
    jerk: list[float | None] = Field(description="Largest absolute value, in the unit per s^3.")
    min_horizon: int = Field(description="A chunk that would be cut to fewer steps is refused.")


class VectorAnswer(Body):
    """Names and units of a state or an action, one entry per dimension."""

    names: list[str]
    units: list[str]
    statistics_digest: str = Field(description="SHA-256 of the normalisation statistics.")
    limits: LimitsAnswer = Field(description="Of an action. A state has none.")
    hold: list[Hold] = Field(
        description="Of an action: what a robot that holds sends in each dimension. `last`: the last command again, "
        "which is a position or a gripper's sign. `zero`: 0, because the command is an offset. Empty: `last` "
        "everywhere."
    )


class PolicyAnswer(Body):
    """The facts about a policy that a robot needs before its first request."""

    name: str
    digest: str = Field(description="SHA-256 of the policy's files.")
    untrained: bool = Field(description="True for random weights. Never run its actions on a robot.")
    cameras: list[CameraAnswer]
    state: VectorAnswer
    action: VectorAnswer
    horizon: int = Field(description="Control steps in one chunk of actions.")
    control_hz: float = Field(description="Control steps per second.")
    history_frames: int = Field(description="Latent frames in a session's frame memory.")
    max_instruction_bytes: int = Field(description="Longest instruction, in bytes of UTF-8.")
    defaults: Options
    bounds: Annotated[dict[str, int], WithJsonSchema(TypeAdapter(PlannerBounds).json_schema())]
    notes: str = Field(description="A text for people.")
    max_message_bytes: Answered = Field(description="Largest request body, in bytes.")
    embodiment: str = Field(description="The kind of robot, such as `piper_dual`. Empty: not declared.")
    action_kind: Literal["absolute", "delta", "relative"] = Field(
        description="How commands are made of the model's output. Answers have commands in every kind."
    )
    rtc: RtcAnswer = Field(description="The defaults.")
    rtc_modes: list[str] = Field(description="Modes of real-time chunking that a request may ask for.")
    max_trained_delay: int = Field(
        description="Longest delay of `rtc_trained`, in steps. 0: the policy was not trained for it."
    )
    golden_digest: str = Field(
        description="SHA-256 of the plan that the server checks before it is ready. Empty: none."
    )


class PoliciesAnswer(Body):
    """The policies of this server: one."""

    policies: list[PolicyAnswer]


class ResetAnswer(Body):
    """The session whose frame memory was forgotten, or that was ended."""

    session_id: str


class HealthAnswer(Body):
    """`alive` from /healthz, `ready` from /readyz."""

    status: Literal["alive", "ready"]


class Problem(Body):
    """RFC 9457 problem details. Fields after `retryable` are present only where they apply."""

    type: str = Field(description="`urn:wavserve:problem:<name>`, with the error's name.")
    title: str = Field(description="The kind of error, in words.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What happened.")
    instance: str = Field(
        description="Id of this failure. The server's log has the failure under the same id. not-ready, and what is "
        "refused before there is a request, is logged at level debug."
    )
    retryable: bool = Field(
        default=False, description="Whether a later request may succeed. Send the current images then."
    )
    retry_after_s: float | None = Field(default=None, description="Seconds until a retry may be admitted.")
    predicted_s: float | None = Field(
        default=None,
        description="Seconds until the plan would have been ready. Present when this prediction is the reason of the "
        "refusal.",
    )
    deadline: Literal["missed"] | None = Field(
        default=None,
        description="Present when a plan was admitted and was not ready by its deadline; absent when a request was "
        "refused. The next four fields say how far it was from its deadline and what was computed.",
    )
    slack_ms: float | None = Field(
        default=None,
        description="Deadline minus the time of this error, in milliseconds. Negative in the error of a late plan.",
    )
    iterations_done: int | None = Field(default=None, description="Planning iterations (K) that were done.")
    num_video_samples: int | None = Field(default=None, description="Video samples (N) of each iteration.")
    num_value_samples: int | None = Field(default=None, description="Value samples (M) of each video sample.")
    step: int | None = Field(
        default=None,
        description="Index of the planned step that breaks a limit of the policy. Present in unsafe-chunk, with the "
        "next five fields.",
    )
    dimension: int | None = Field(default=None, description="Index of the action's dimension.")
    name: str | None = Field(default=None, description="Name of the dimension.")
    limit: Literal["position", "velocity", "jerk"] | None = None
    bound: float | None = Field(
        default=None, description="In the dimension's unit, per second (velocity) or per second cubed (jerk)."
    )
    value: float | None = Field(default=None, description="What the step has, in the same unit.")
    field: str | None = Field(default=None, description="Dotted path of the refused field.")
    expected: str | None = Field(default=None, description="What the field must be.")
    actual: str | None = Field(default=None, description="What the request has there.")
