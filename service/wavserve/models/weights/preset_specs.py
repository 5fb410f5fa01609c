"""The presets' specs and sizes, by name.

A spec declares what a trained policy of that robot would. This module knows neither files nor weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch

from wavserve.core.spec import (
    ActionSpec,
    CameraSpec,
    ExpertConfig,
    LatentSpec,
    LimitsSpec,
    ModelConfig,
    NormSpec,
    PlannerConfig,
    PolicySpec,
    VectorSpec,
    VideoConfig,
)
from wavserve.models.weights.standins import StandIns


@dataclass(frozen=True, slots=True)
class Preset:
    """A bundle to make: its spec, the sizes of its stand-ins, and the type of its weights."""

    spec: PolicySpec
    stand_ins: StandIns
    dtype: torch.dtype
    """type of the transformers' weights"""


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
        model=_tiny_model(action_channels=15, value_channels=10),
        latent=_TINY_LATENT,
        planner=_TINY_PLANNER,
    )
    return Preset(spec, _TINY_STAND_INS, torch.float32)


def _tiny_piper() -> Preset:
    """`tiny` for two Piper arms. Its actions move the joints little, so that random chunks stay within the limits.

    The arms must start away from the ends of their joints.
    """
    spec = PolicySpec(
        name="tiny-piper",
        untrained=True,
        cameras=tuple(CameraSpec(name, 128, 128, "bilinear") for name in _PIPER_CAMERAS),
        state=_PIPER_JOINTS,
        action=ActionSpec(
            _both_arms((*(0.0,) * 6, 0.035), (*(_STEP_STD,) * 6, 0.001)),
            "delta",
            absolute_dims=_GRIPPERS,
            limits=_PIPER_LIMITS,
        ),
        chunk=54,
        control_hz=30,
        memory_threshold=1,
        max_instruction_bytes=255,
        max_prompt_tokens=256,
        model=_tiny_model(action_channels=28, value_channels=17),
        latent=_TINY_LATENT,
        planner=replace(_TINY_PLANNER, num_iterations=1),
        embodiment="piper_dual",
    )
    return Preset(spec, _TINY_STAND_INS, torch.float32)


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
    spec = PolicySpec(
        name="piper",
        untrained=True,
        cameras=tuple(CameraSpec(name, 256, 256, "bilinear") for name in _PIPER_CAMERAS),
        state=_PIPER_JOINTS,
        action=ActionSpec(_PIPER_JOINTS, "absolute", absolute_dims=_GRIPPERS),
        chunk=54,
        control_hz=30,
        memory_threshold=1,
        max_instruction_bytes=127,
        max_prompt_tokens=128,
        model=_full_model(action_channels=28, value_channels=17),
        latent=LatentSpec(num_memory_frames=4, num_future_frames=2, height=8, width=8),
        planner=PlannerConfig(num_iterations=1),
        embodiment="piper_dual",
    )
    return Preset(spec, _FULL_STAND_INS, torch.bfloat16)


def _full_model(action_channels: int, value_channels: int) -> ModelConfig:
    """The sizes of the 2.3 B model of the released code."""
    return ModelConfig(
        video=VideoConfig(128, 128, num_layers=28, num_heads=32, head_dim=64, caption_channels=4096),
        value=ExpertConfig(value_channels, value_channels, num_heads=16, head_dim=32, rope_base=_VALUE_ROPE),
        action=ExpertConfig(action_channels, action_channels, num_heads=16, head_dim=32, rope_base=_ACTION_ROPE),
    )


def _tiny_model(action_channels: int, value_channels: int) -> ModelConfig:
    return ModelConfig(
        video=VideoConfig(16, 16, num_layers=4, num_heads=6, head_dim=16, caption_channels=64),
        value=ExpertConfig(value_channels, value_channels, num_heads=3, head_dim=16, rope_base=_VALUE_ROPE),
        action=ExpertConfig(action_channels, action_channels, num_heads=3, head_dim=16, rope_base=_ACTION_ROPE),
    )


def _minmax(names: str, units: str, low: tuple[float, ...], high: tuple[float, ...]) -> VectorSpec:
    return VectorSpec(tuple(names.split()), tuple(units.split(", ")), NormSpec("minmax", low, high))


def _both_arms(mean: tuple[float, ...], std: tuple[float, ...]) -> VectorSpec:
    """Left arm, then right arm: six joints and the gripper each, with the statistics of one arm."""
    names = (*(f"joint_{i}" for i in range(1, 7)), "gripper")
    return VectorSpec(
        names=tuple(f"{side}_{name}" for side in ("left", "right") for name in names),
        units=(*("rad",) * 6, "m") * 2,
        norm=NormSpec("meanstd", mean * 2, std * 2),
    )


_ACTION_ROPE, _VALUE_ROPE = 54, 57  # constants of the released code, for any chunk length
_FULL_STAND_INS = StandIns(128, (32, 32, 64, 64), 0.3, 4096, 8, 64, 1024, 2)
_TINY_STAND_INS = StandIns(16, (16, 16, 32, 32), 0.25, 64, 4, 16, 128, 2)
_TINY_LATENT = LatentSpec(num_memory_frames=4, num_future_frames=2, height=4, width=4)
_TINY_PLANNER = PlannerConfig(
    num_iterations=3,
    num_video_samples=8,
    num_value_samples=3,
    video_elite_fraction=0.5,
    value_elite_fraction=0.25,
)
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
    ),
    hold=(*("zero",) * 6, "last"),  # a gripper keeps its sign
)
_PIPER_CAMERAS = ("top", "left_wrist", "right_wrist")
_GRIPPERS = (6, 13)
_PIPER_RANGES = (
    (-2.6179, 2.6179),
    (0.0, 3.14),
    (-2.967, 0.0),
    (-1.745, 1.745),
    (-1.22, 1.22),
    (-2.09439, 2.09439),
    (0.0, 0.07),
)
"""what one arm's joints and its gripper reach, in rad and m"""
_PIPER_JOINTS = _both_arms(
    tuple((low + high) / 2 for low, high in _PIPER_RANGES), tuple((high - low) / 4 for low, high in _PIPER_RANGES)
)
"""mean and std are derived from the ranges"""
_PIPER_LIMITS = LimitsSpec(
    position=_PIPER_RANGES * 2,
    velocity=(*(3.0,) * 6, None) * 2,  # the arm's own limit; a gripper may open and close at once
    jerk=(*(2000.0,) * 6, None) * 2,
    min_horizon=10,
)
_STEP_STD = 2e-4
"""std of a joint's motion in one control step, in rad"""

PRESETS: Mapping[str, Callable[[], Preset]] = {
    "tiny": _tiny,
    "libero": _libero,
    "piper": _piper,
    "tiny-piper": _tiny_piper,
}
