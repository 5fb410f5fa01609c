"""What a policy bundle declares: cameras, vectors, model sizes, planner defaults. Frozen data, read from `policy.json`.

No other module is specific to a robot: every number that a request is checked against is declared here. Knows neither
torch nor the wire.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

_STRICT = {"extra": "forbid"}  # makes pydantic refuse unknown keys when `bundle/bundle.py` parses policy.json

Resize = Literal["exact", "bilinear", "bicubic", "area"]
Mode = Literal["paper", "published", "off", "mean", "best_of_n", "random_scores", "fixed_shrink"]
MODES: tuple[Mode, ...] = get_args(Mode)
ActionKind = Literal["absolute", "delta", "relative"]
Orientation = Literal["as_captured", "rotated_180"]
Hold = Literal["last", "zero"]
RtcMode = Literal["off", "rtc_guided", "rtc_trained"]
RTC_MODES: tuple[RtcMode, ...] = get_args(RtcMode)
PrefixSchedule = Literal["LINEAR", "EXP", "ONES", "ZEROS"]
PREFIX_SCHEDULES: tuple[PrefixSchedule, ...] = get_args(PrefixSchedule)


@dataclass(frozen=True, slots=True)
class CameraSpec:
    """One camera view. `exact` refuses any other size; the named filters resize larger and smaller frames."""

    __pydantic_config__: ClassVar[Any] = _STRICT
    name: str
    height: int
    width: int
    resize: Resize = "exact"
    orientation: Orientation = "as_captured"
    """of the images that the policy was trained with, relative to what the camera delivers"""


@dataclass(frozen=True, slots=True)
class NormSpec:
    """Statistics of a vector, one entry per dimension. `minmax` maps q01..q99 to [-1, 1]; `meanstd` standardises."""

    __pydantic_config__: ClassVar[Any] = _STRICT
    kind: Literal["minmax", "meanstd"]
    low: tuple[float, ...]
    """q01 (minmax) or mean (meanstd)."""
    high: tuple[float, ...]
    """q99 (minmax) or std (meanstd)."""


@dataclass(frozen=True, slots=True)
class VectorSpec:
    """Names, units and statistics of the state `[S]` or of one action `[A]`, in wire order."""

    __pydantic_config__: ClassVar[Any] = _STRICT
    names: tuple[str, ...]
    units: tuple[str, ...]
    norm: NormSpec

    @property
    def dim(self) -> int:
        return len(self.names)


@dataclass(frozen=True, slots=True)
class LimitsSpec:
    """Kinematic limits of commands: one entry per dimension, or no entry at all. None: that dimension is unchecked."""

    __pydantic_config__: ClassVar[Any] = _STRICT
    position: tuple[tuple[float, float] | None, ...] = ()
    """lowest and highest command, in the dimension's unit"""
    velocity: tuple[float | None, ...] = ()
    """largest absolute value, in the unit per second"""
    jerk: tuple[float | None, ...] = ()
    """largest absolute value, in the unit per second cubed"""
    min_horizon: int = 1
    """A chunk that breaks a limit is cut at the first bad step, if at least this many steps remain."""


@dataclass(frozen=True, slots=True)
class RtcSpec:
    """Real-time chunking: the new chunk continues the left-over of the previous one (arXiv 2506.07339, 2512.05964).

    A request may override it. The names are LeRobot's.
    """

    __pydantic_config__: ClassVar[Any] = _STRICT
    mode: RtcMode = "off"
    prefix_attention_schedule: PrefixSchedule = "LINEAR"
    max_guidance_weight: float = 10.0
    execution_horizon: int = 10
    """Steps of the left-over that guide the flow."""


@dataclass(frozen=True, slots=True)
class ActionSpec:
    """How the action expert's output becomes commands (paper, normalisation of states and actions).

    `absolute`: the output is the command. `delta`: the cumulative sum of the output is added to the measured state.
    `relative`: the output is added to the normalised state. Dimensions in `absolute_dims` (grippers) are absolute in
    every kind.
    """

    __pydantic_config__: ClassVar[Any] = _STRICT
    vector: VectorSpec
    kind: ActionKind = "absolute"
    absolute_dims: tuple[int, ...] = ()
    limits: LimitsSpec = field(default_factory=LimitsSpec)
    hold: tuple[Hold, ...] = ()
    """What a robot at rest is sent, one entry per dimension.

    `last`: the command is a position, or the sign of a gripper, and a hold repeats it. `zero`: the command is an
    offset, and a hold sends 0. Empty: `last` everywhere.
    """


@dataclass(frozen=True, slots=True)
class ExpertConfig:
    """The diffusion transformer of one expert (value or action)."""

    __pydantic_config__: ClassVar[Any] = _STRICT
    in_channels: int
    out_channels: int
    num_heads: int
    head_dim: int
    rope_base: int

    @property
    def width(self) -> int:
        return self.num_heads * self.head_dim


@dataclass(frozen=True, slots=True)
class VideoConfig:
    """The video diffusion transformer. The experts have the same `num_layers`."""

    __pydantic_config__: ClassVar[Any] = _STRICT
    in_channels: int
    out_channels: int
    num_layers: int
    num_heads: int
    head_dim: int
    caption_channels: int
    max_views: int = 3
    rope_base: tuple[int, int, int] = (20, 2048, 2048)
    """Frames, height and width (pixels) at which the grid of the rotary embedding reaches 1."""

    @property
    def width(self) -> int:
        return self.num_heads * self.head_dim


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The three transformers together, and the constants they share."""

    __pydantic_config__: ClassVar[Any] = _STRICT
    video: VideoConfig
    value: ExpertConfig
    action: ExpertConfig
    rope_theta: float = 10000.0
    norm_eps: float = 1e-6
    qk_norm_eps: float = 1e-5
    out_norm_eps: float = 1e-6


@dataclass(frozen=True, slots=True)
class LatentSpec:
    """Shape of one view of a latent video sample: F = memory + future frames of `[height, width]`."""

    __pydantic_config__: ClassVar[Any] = _STRICT
    num_memory_frames: int
    num_future_frames: int
    height: int
    width: int
    frame_rate: int = 30
    spatial_ratio: int = 32
    temporal_ratio: int = 8

    @property
    def num_frames(self) -> int:
        return self.num_memory_frames + self.num_future_frames

    @property
    def tokens_per_frame(self) -> int:
        return self.height * self.width

    @property
    def num_tokens(self) -> int:
        """Tokens of one view, `L`."""
        return self.num_frames * self.tokens_per_frame


@dataclass(frozen=True, slots=True)
class PlannerConfig:
    """The settings of one plan (paper section 4.3). A bundle gives the defaults; a request may override them."""

    __pydantic_config__: ClassVar[Any] = _STRICT
    mode: Mode = "paper"
    num_iterations: int = 5
    """K"""
    num_video_samples: int = 30
    """N"""
    num_value_samples: int = 5
    """M"""
    num_flow_steps: int = 10
    """Euler steps of the value and action experts."""
    num_video_steps: int = 1
    """Euler steps of the video model before its features are read; the released code takes 1."""
    smoothing: float = 0.9
    """a: the weight of the old Gaussian."""
    decay: float = 0.5
    """d: factor on the elites' std."""
    video_elite_fraction: float = 0.9
    """p_v"""
    value_elite_fraction: float = 0.1
    """p_u"""
    per_view_noise: bool = False
    """True: one Gaussian per view (paper). False: shared (released code)."""
    estimate_value: bool = False
    """Also score the chosen plan with M value samples of its own, and report the highest score."""
    warm_start: bool = False
    """Start from the means of the session's last plan, shifted by the executed steps, instead of from zero."""
    early_stop: float = 0.0
    """Planning stops after an iteration that changed both Gaussians by less than this; 0: never. The change is the root
    mean square over mean and std, in standard deviations of the noise."""
    fixed_shapes: bool = False
    """Make each call of the models for this plan alone and of a fixed size, so that its numbers do not depend on the
    load. It costs time while other plans run."""

    @property
    def num_video_elites(self) -> int:
        return _share(self.video_elite_fraction, self.num_video_samples)

    @property
    def num_value_elites(self) -> int:
        return _share(self.value_elite_fraction, self.num_video_samples * self.num_value_samples)


def _share(fraction: float, count: int) -> int:
    """`ceil(fraction * count)` without float error: 0.14 of 50 is 7, although the float product is slightly larger."""
    return math.ceil(round(fraction * count, 9))


@dataclass(frozen=True, slots=True)
class PlannerBounds:
    """The largest plan that a request may ask for."""

    __pydantic_config__: ClassVar[Any] = _STRICT
    max_iterations: int = 10
    max_video_samples: int = 64
    max_value_samples: int = 16
    max_flow_steps: int = 50
    max_video_steps: int = 10
    max_imagined_chunks: int = 4


@dataclass(frozen=True, slots=True)
class PolicySpec:
    """Everything that a bundle declares besides its weights."""

    __pydantic_config__: ClassVar[Any] = _STRICT
    name: str
    untrained: bool
    cameras: tuple[CameraSpec, ...]
    state: VectorSpec
    action: ActionSpec
    chunk: int
    """T: actions in one answer, and tokens of the action expert."""
    control_hz: float
    memory_threshold: int
    """Executed steps after which the newest memory frame is kept and a new one is started."""
    max_instruction_bytes: int
    max_prompt_tokens: int
    model: ModelConfig
    latent: LatentSpec
    planner: PlannerConfig = field(default_factory=PlannerConfig)
    bounds: PlannerBounds = field(default_factory=PlannerBounds)
    pad_prompt: bool = False
    """Whether the text encoder also sees unmasked padding up to `max_prompt_tokens`, as in the training of the released
    WAV code. The embeddings of the padding itself are dropped in both cases."""
    value_chunk: int | None = None
    """Tokens of the value expert; None: as many as actions, as in the released configurations."""
    value_norm: NormSpec | None = None
    """Mean and std of the reward and of the return, the value expert's last two channels; None: not declared."""
    embodiment: str = ""
    """The kind of robot, such as `piper_dual`; empty: not declared."""
    rtc: RtcSpec = field(default_factory=RtcSpec)
    max_trained_delay: int = 0
    """Longest delay in steps that the action expert was trained to continue (`rtc_trained`); 0: not trained for it."""
    notes: str = ""

    @property
    def num_views(self) -> int:
        return len(self.cameras)

    @property
    def num_value_tokens(self) -> int:
        return self.chunk if self.value_chunk is None else self.value_chunk

    @property
    def rtc_modes(self) -> tuple[RtcMode, ...]:
        """The modes of real-time chunking that a request may ask for."""
        return RTC_MODES if self.max_trained_delay else ("off", "rtc_guided")
