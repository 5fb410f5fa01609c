"""The named bundles that need no download: `tiny`, `libero` and `piper`, all with seeded random weights.

Each bundle states that its weights are random (`untrained`, `notes`). This module knows nothing of serving.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from wavserve.bundle import bundle
from wavserve.bundle.files import atomic_folder
from wavserve.core.errors import BundleError
from wavserve.core.spec import (
    ActionSpec,
    CameraSpec,
    ExpertConfig,
    LatentSpec,
    ModelConfig,
    NormSpec,
    PlannerConfig,
    PolicySpec,
    VectorSpec,
    VideoConfig,
)
from wavserve.models.weights import weights
from wavserve.models.weights.standins import StandIns, write_text_encoder, write_tokenizer, write_vae

Progress = Callable[[float], None]
"""A function that is called with the fraction done, 0 to 1."""

_NOTES = (
    "seeded random weights (seed {seed}) in the transformers, the VAE and the text encoder, and invented normalisation "
    "statistics: for tests and measurements, never for a robot"
)


@dataclass(frozen=True, slots=True)
class Preset:
    """A bundle to make: its spec, the sizes of its stand-ins, and the type of its weights."""

    spec: PolicySpec
    stand_ins: StandIns
    dtype: torch.dtype
    """type of the transformers' weights"""


def create(preset: str, folder: Path, seed: int = 0, progress: Progress | None = None) -> bundle.Bundle:
    """Makes the bundle of a preset at `folder`. The same seed gives the same digest.

    `libero` and `piper` take a minute and 5 GB. Raises BundleError when the preset is unknown or `folder` exists.
    """
    return make(find(preset), folder, seed, progress)


def make(preset: Preset, folder: Path, seed: int = 0, progress: Progress | None = None) -> bundle.Bundle:
    """Like `create`, from a preset that is given. Raises BundleError when `folder` exists."""
    with atomic_folder(folder) as partial:
        for part in bundle.PARTS:
            (partial / part).mkdir()
        write_vae(partial / bundle.VAE, preset.stand_ins, seed)
        write_text_encoder(partial / bundle.TEXT_ENCODER, preset.stand_ins, seed)
        write_tokenizer(partial / bundle.TOKENIZER)
        weights.save_random(preset.spec.model, partial / bundle.TRANSFORMER, seed, preset.dtype, progress)
        bundle.save_spec(partial, replace(preset.spec, notes=_NOTES.format(seed=seed)))
        bundle.load(partial)
    return bundle.load(folder)


def find(preset: str) -> Preset:
    """A preset by name. Raises BundleError listing the known presets."""
    makers: Mapping[str, Callable[[], Preset]] = {"tiny": _tiny, "libero": _libero, "piper": _piper}
    if preset not in makers:
        raise BundleError(f"preset: expected one of {', '.join(makers)}, got {preset!r}")
    return makers[preset]()


def _tiny() -> Preset:
    spec = PolicySpec(
        name="tiny",
        untrained=True,
        cameras=(CameraSpec("agentview", 128, 128, "area"), CameraSpec("wrist", 128, 128, "area")),
        state=_LIBERO_STATE,
        action=_LIBERO_ACTION,
        chunk=16,
        control_hz=20,
        memory_threshold=1,
        max_instruction_bytes=255,
        max_prompt_tokens=256,
        model=ModelConfig(
            video=VideoConfig(16, 16, num_layers=4, num_heads=6, head_dim=16, caption_channels=64),
            value=ExpertConfig(10, 10, num_heads=3, head_dim=16, rope_base=_VALUE_ROPE),
            action=ExpertConfig(15, 15, num_heads=3, head_dim=16, rope_base=_ACTION_ROPE),
        ),
        latent=LatentSpec(num_memory_frames=4, num_future_frames=2, height=4, width=4),
        planner=PlannerConfig(
            num_iterations=3,
            num_video_samples=8,
            num_value_samples=3,
            video_elite_fraction=0.5,
            value_elite_fraction=0.25,
        ),
    )
    return Preset(spec, StandIns(16, (16, 16, 32, 32), 0.25, 64, 4, 16, 128, 2), torch.float32)


def _libero() -> Preset:
    spec = PolicySpec(
        name="libero",
        untrained=True,
        cameras=(CameraSpec("agentview", 256, 256), CameraSpec("wrist", 256, 256)),
        state=_LIBERO_STATE,
        action=_LIBERO_ACTION,
        chunk=36,
        control_hz=20,
        memory_threshold=1,
        max_instruction_bytes=127,
        max_prompt_tokens=128,
        model=_full_model(action_channels=15, value_channels=10),
        latent=LatentSpec(num_memory_frames=4, num_future_frames=2, height=8, width=8),
        planner=PlannerConfig(num_iterations=5),
    )
    return Preset(spec, _FULL_STAND_INS, torch.bfloat16)


def _piper() -> Preset:
    cameras = ("top", "left_wrist", "right_wrist")
    spec = PolicySpec(
        name="piper",
        untrained=True,
        cameras=tuple(CameraSpec(name, 256, 256, "bilinear") for name in cameras),
        state=_PIPER_JOINTS,
        action=ActionSpec(_PIPER_JOINTS, "absolute", absolute_dims=(6, 13)),
        chunk=54,
        control_hz=30,
        memory_threshold=1,
        max_instruction_bytes=127,
        max_prompt_tokens=128,
        model=_full_model(action_channels=28, value_channels=17),
        latent=LatentSpec(num_memory_frames=4, num_future_frames=2, height=8, width=8),
        planner=PlannerConfig(num_iterations=1),
    )
    return Preset(spec, _FULL_STAND_INS, torch.bfloat16)


def _full_model(action_channels: int, value_channels: int) -> ModelConfig:
    """The sizes of the 2.3 B model of the released code."""
    return ModelConfig(
        video=VideoConfig(128, 128, num_layers=28, num_heads=32, head_dim=64, caption_channels=4096),
        value=ExpertConfig(value_channels, value_channels, num_heads=16, head_dim=32, rope_base=_VALUE_ROPE),
        action=ExpertConfig(action_channels, action_channels, num_heads=16, head_dim=32, rope_base=_ACTION_ROPE),
    )


def _minmax(names: str, units: str, low: tuple[float, ...], high: tuple[float, ...]) -> VectorSpec:
    return VectorSpec(tuple(names.split()), tuple(units.split(", ")), NormSpec("minmax", low, high))


def _piper_joints() -> VectorSpec:
    """Left arm, then right arm: six joints and the gripper each. Mean and std are derived from the arm's limits."""
    names = (*(f"joint_{i}" for i in range(1, 7)), "gripper")
    limits = ((-2.618, 2.618), (0, 3.14), (-2.967, 0), (-1.745, 1.745), (-1.22, 1.22), (-2.094, 2.094), (0, 0.07))
    return VectorSpec(
        names=tuple(f"{side}_{name}" for side in ("left", "right") for name in names),
        units=(*("rad",) * 6, "m") * 2,
        norm=NormSpec("meanstd", tuple((a + b) / 2 for a, b in limits) * 2, tuple((b - a) / 4 for a, b in limits) * 2),
    )


_ACTION_ROPE, _VALUE_ROPE = 54, 57  # constants of the released code, for any chunk length
_FULL_STAND_INS = StandIns(128, (32, 32, 64, 64), 0.3, 4096, 8, 64, 1024, 2)
_LIBERO_STATE = _minmax(
    "eef_x eef_y eef_z eef_axis_angle_x eef_axis_angle_y eef_axis_angle_z gripper_left gripper_right",
    "m, m, m, rad, rad, rad, m, m",
    (-0.5, -0.5, 0.0, -3.5, -3.5, -3.5, 0.0, -0.04),
    (0.5, 0.5, 1.2, 3.5, 3.5, 3.5, 0.04, 0.0),
)
# The commands of LIBERO's controller: 1 means 0.05 m or 0.5 rad. A command is already an offset of the pose. The policy
# predicts the command itself and adds no state, so the kind is `absolute`.
_LIBERO_ACTION = ActionSpec(
    _minmax(
        "delta_x delta_y delta_z delta_axis_angle_x delta_axis_angle_y delta_axis_angle_z gripper",
        "0.05 m, 0.05 m, 0.05 m, 0.5 rad, 0.5 rad, 0.5 rad, -1 open +1 close",
        (-1.0,) * 7,
        (1.0,) * 7,
    )
)
_PIPER_JOINTS = _piper_joints()
