"""How a policy is trained: its sizes and, for each stage, the optimisation and the losses. Read from a TOML file.

Each default is written once, here. Knows neither files of data nor torch.
"""

from __future__ import annotations

import hashlib
import json
import math
import tomllib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from pydantic import TypeAdapter

from wavserve.bundle.bundle import validated
from wavserve.core.errors import BundleError, shown

_STRICT = {"extra": "forbid"}
StageName = Literal["vae", "video", "value", "action"]
STAGES: tuple[StageName, ...] = get_args(StageName)
"""In the order of training. Each one starts from the weights of those before it."""
_SHARES = ("decay_from", "noisiest_share", "image_dropout", "any_noise_share", "prefix_share")
_POSITIVE = ("learning_rate", "max_gradient", "noise_bias")


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimisation:
    """How a stage changes its weights: AdamW, warm-up, then constant, then a cosine to almost nothing."""

    __pydantic_config__: ClassVar[Any] = _STRICT
    num_steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int = 150
    decay_from: float = 0.3
    """fraction of the steps after which the learning rate falls"""
    weight_decay: float = 0.02
    max_gradient: float = 1.0
    """norm to which gradients are clipped"""
    ema: float = 0.995
    """weight of the old average of the weights in each step; the average is what is served"""
    precision: Literal["float32", "bfloat16"] = "float32"


@dataclass(frozen=True, slots=True, kw_only=True)
class VaeRecipe:
    """The video autoencoder. Most steps see single frames. Some see clips, of which it decodes what lies between."""

    __pydantic_config__: ClassVar[Any] = _STRICT
    optimisation: Optimisation
    latent_channels: int
    encoder_blocks: tuple[int, int, int, int]
    decoder_blocks: tuple[int, int, int, int]
    clip_every: int = 4
    """each such step sees clips"""
    clip_batch_size: int = 2
    latent_noise: float = 0.05
    """std of the noise on latents before they are decoded and read"""
    absolute_weight: float = 0.2
    """of the absolute error, beside the squared one"""
    readout_weight: float = 0.15
    """of the positions that a small network reads from the latents"""
    latent_weight: float = 1e-4
    """of the squared latents"""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoRecipe:
    """The video transformer. Its width is `num_heads * head_dim`; the experts have as many layers."""

    __pydantic_config__: ClassVar[Any] = _STRICT
    optimisation: Optimisation
    num_layers: int
    num_heads: int
    head_dim: int
    rope_base: tuple[int, int, int] = (20, 128, 128)
    noisiest_share: float = 0.25
    """of the rows that are pure noise, which is what serving reads features of"""
    memory_noise: float = 0.1
    """std of the noise on the memory's latents"""
    image_dropout: float = 0.08
    """share of rows whose memory is zeroed, so that the state is read too"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueRecipe:
    """The value expert, which predicts future states, rewards and returns."""

    __pydantic_config__: ClassVar[Any] = _STRICT
    optimisation: Optimisation
    num_heads: int
    head_dim: int
    num_draws: int = 2
    """noises and noise levels for each sample"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionRecipe:
    """The action expert, trained together with the other two."""

    __pydantic_config__: ClassVar[Any] = _STRICT
    optimisation: Optimisation
    num_heads: int
    head_dim: int
    num_draws: int = 4
    noise_bias: float = 1.3
    """above 1: more draws at high noise levels"""
    state_noise: float = 0.02
    state_weight: float = 0.1
    """of the predicted states' channels"""
    video_weight: float = 0.1
    value_weight: float = 0.1
    any_noise_share: float = 0.25
    """rows for which the video loss is also taken at a random noise level, as a share of the batch: the same number of
    rows of each task, so it is rounded down, at least one. It is also the weight of that loss."""
    max_delay: int = 4
    """longest clean prefix in steps, for real-time chunking"""
    prefix_share: float = 0.3
    """of the draws that have a clean prefix"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannerRecipe:
    """The defaults of the served planner."""

    __pydantic_config__: ClassVar[Any] = _STRICT
    num_iterations: int = 3
    num_video_steps: int = 1
    num_video_samples: int = 8
    num_value_samples: int = 3
    video_elite_fraction: float = 0.5
    value_elite_fraction: float = 0.25
    mode: Literal["paper", "off"] = "off"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """All of it."""

    __pydantic_config__: ClassVar[Any] = _STRICT
    name: str
    """of the policy"""
    vae: VaeRecipe
    video: VideoRecipe
    value: ValueRecipe
    action: ActionRecipe
    planner: PlannerRecipe = field(default_factory=PlannerRecipe)
    notes: str = ""
    seed: int = 0
    chunk: int = 16
    """actions of a plan"""
    future_stride: int = 2
    """control steps from one frame of a clip to the next; the predicted future is the eighth after the memory's"""
    held_out_every: int = 12
    """each such episode of a task is kept for evaluation"""
    evaluate_every: int = 500
    """steps"""
    video_steps: tuple[int, ...] = (1,)
    """numbers of steps (`num_video_steps` of a plan) by which a future may be denoised before the experts read it. Each
    sample draws one of them"""

    def digest(self, stage: StageName) -> str:
        """sha256 (hex) of what the weights of a stage depend on: the shared entries, its own, and those before it."""
        shared = ("seed", "chunk", "future_stride", "held_out_every")
        kept = (*shared, *STAGES[: STAGES.index(stage) + 1])
        if stage in ("value", "action") and self.video_steps != (1,):  # the default leaves older runs valid
            kept = (*kept, "video_steps")
        content = {name: value for name, value in asdict(self).items() if name in kept}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def load_recipe(path: Path) -> Recipe:
    """Raises BundleError naming the file, the entry, the expected and the actual value."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: expected a TOML file: {error}") from error
    recipe: Recipe = validated(TypeAdapter(Recipe), document, path.name)
    _check(recipe, path.name)
    return recipe


def _check(recipe: Recipe, file: str) -> None:
    """Raises BundleError at the first number that cannot be trained with."""
    for stage in STAGES:
        own = getattr(recipe, stage)
        for name, value in _numbers(asdict(own)):
            if (expected := _expected(name.rsplit(".", 1)[-1], value)) is not None:
                raise BundleError(f"{file}: {stage}.{name}: expected {expected}, got {shown(value)}")
        if stage != "vae" and (width := own.num_heads * own.head_dim) % 2:  # channels are rotated in pairs
            raise BundleError(f"{file}: {stage}.num_heads * head_dim: expected an even number, got {width}")
    for name in ("seed", "chunk", "future_stride", "held_out_every", "evaluate_every"):
        least = 0 if name == "seed" else 1
        if getattr(recipe, name) < least:
            raise BundleError(f"{file}: {name}: expected a number from {least} on, got {getattr(recipe, name)}")
    if not recipe.video_steps or min(recipe.video_steps) < 1:
        raise BundleError(f"{file}: video_steps: expected numbers from 1 on, got {shown(list(recipe.video_steps))}")
    if recipe.planner.num_video_steps not in recipe.video_steps:
        expected = f"one of video_steps, {shown(list(recipe.video_steps))}"
        raise BundleError(f"{file}: planner.num_video_steps: expected {expected}, got {recipe.planner.num_video_steps}")
    if recipe.action.max_delay >= recipe.chunk:
        raise BundleError(f"{file}: action.max_delay: expected less than chunk, got {recipe.action.max_delay}")


def _expected(name: str, value: int | float) -> str | None:
    """What an entry should be; None: it is."""
    if not math.isfinite(value):
        return "a finite number"
    if name in _SHARES:
        return None if 0 <= value <= 1 else "a number from 0 to 1"
    if name == "ema":
        return None if 0 <= value < 1 else "a number from 0 on, below 1"
    if name in _POSITIVE:
        return None if value > 0 else "a number above 0"
    least = 0 if isinstance(value, float) or name in ("max_delay", "warmup_steps") else 1
    return None if value >= least else f"a number from {least} on"


def _numbers(table: dict[str, Any]) -> list[tuple[str, int | float]]:
    """Every number of a section, by dotted name."""
    found: list[tuple[str, int | float]] = []
    for name, value in table.items():
        if isinstance(value, dict):
            found += [(f"{name}.{inner}", number) for inner, number in _numbers(value)]
        elif isinstance(value, int | float):
            found.append((name, value))
        elif isinstance(value, tuple | list):
            found += [(f"{name}[{i}]", number) for i, number in enumerate(value)]
    return found
