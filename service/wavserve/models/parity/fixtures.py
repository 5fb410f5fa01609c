"""Reading a folder of parity fixtures: its configuration, the tensors of each fixture, and one planning request.

All values are read from the folder. This module assumes nothing about the robot.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from wavserve.core.errors import BundleError
from wavserve.core.spec import ExpertConfig, LatentSpec, Mode, ModelConfig, PlannerConfig, VideoConfig
from wavserve.models.networks.plain import Draws, Scene

TOLERANCE = 1e-4
"""Largest absolute error allowed in float32."""

FLOW_STEPS = 10
"""Euler steps of every fixture, as in the released code."""

_REQUIRED: Mapping[str, Mapping[str, object]] = {
    "model_kwargs": {"patch_size": 1, "patch_size_t": 1, "action_expert": True, "value_expert": True},
    "defaults": {"use_view_embed": True, "learnable_action_state": False, "learnable_value_state": False},
}
"""Settings with one supported value. Other values raise BundleError."""


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison: the largest absolute error of one fixture's tensor, computed through one path (plain, fast).

    For elites, the error is the number of indices in which the two sets differ.
    """

    fixture: str
    path: str
    tensor: str
    error: float
    tolerance: float = TOLERANCE

    @property
    def ok(self) -> bool:
        """Whether the error is within the tolerance. False for NaN."""
        return self.error <= self.tolerance


@dataclass(frozen=True, slots=True)
class FixtureConfig:
    """The contents of `config.json`: model and latent sizes, number of views, chunk lengths, prompt tokens."""

    model: ModelConfig
    latent: LatentSpec
    num_views: int
    action_chunk: int
    value_chunk: int
    num_prompt: int


@dataclass(frozen=True, slots=True)
class Fixture:
    """One fixture. Indexing by name gives a tensor and raises BundleError when there is none of that name."""

    name: str
    meta: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.tensors:
            raise BundleError(f"fixture {self.name}: expected a tensor {name}, got {', '.join(sorted(self.tensors))}")
        return self.tensors[name]


def read_fixture(folder: Path, name: str) -> Fixture | None:
    """The fixture of this name, or None when the folder has none. Raises BundleError when it cannot be read."""
    path = folder / f"{name}.safetensors"
    if not path.is_file():
        return None
    try:
        meta = path.with_suffix(".json")
        return Fixture(name, json.loads(meta.read_text()) if meta.is_file() else {}, load_file(path))
    except (OSError, ValueError, SafetensorError) as error:
        raise BundleError(f"fixture {path}: {error}") from error


def read_config(folder: Path) -> FixtureConfig:
    """The folder's configuration. Raises BundleError when it is missing, incomplete or not supported."""
    path = folder / "config.json"
    try:
        return config_from_fixture(json.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: expected the fixtures' configuration, got {error!r}") from error
    except KeyError as error:
        raise BundleError(f"{path}: missing {error}") from error


def config_from_fixture(config: Mapping[str, Any]) -> FixtureConfig:
    """The contents of `config.json` as our types.

    Raises KeyError when a key is missing and BundleError when a value is not supported.
    """
    for section, settings in _REQUIRED.items():
        for key, value in settings.items():
            if config[section].get(key, value) != value:
                raise BundleError(f"config.json {section}.{key}: expected {value!r}, got {config[section][key]!r}")
    model = _model(config["model_kwargs"], config["defaults"])
    latent = LatentSpec(
        num_memory_frames=config["n_prev"],
        num_future_frames=config["chunk_latent_frames"],
        height=config["latent_h"],
        width=config["latent_w"],
        frame_rate=config["frame_rate"],
        spatial_ratio=config["vae_spatial_ratio"],
        temporal_ratio=config["vae_temporal_ratio"],
    )
    chunks = config["action_chunk"], config["value_chunk"]
    return FixtureConfig(model, latent, config["n_view"], *chunks, config["text_len"])


def _model(kwargs: Mapping[str, Any], defaults: Mapping[str, Any]) -> ModelConfig:
    base = defaults["video_rope_base"]
    video = VideoConfig(
        in_channels=kwargs["in_channels"],
        out_channels=kwargs["out_channels"],
        num_layers=kwargs["num_layers"],
        num_heads=kwargs["num_attention_heads"],
        head_dim=kwargs["attention_head_dim"],
        caption_channels=kwargs["caption_channels"],
        max_views=defaults["max_view"],
        rope_base=(base["frames"], base["height"], base["width"]),
    )
    if kwargs["cross_attention_dim"] != video.width:
        raise BundleError(
            f"config.json cross_attention_dim: expected {video.width}, got {kwargs['cross_attention_dim']}"
        )
    value, action = (_expert(kwargs, defaults, name) for name in ("value", "action"))
    eps = kwargs["norm_eps"], defaults["qk_norm_eps"], defaults["norm_out_eps"]
    return ModelConfig(video, value, action, defaults["rope_theta"], *eps)


def _expert(kwargs: Mapping[str, Any], defaults: Mapping[str, Any], name: str) -> ExpertConfig:
    channels = kwargs[f"{name}_in_channels"]
    return ExpertConfig(
        in_channels=channels,
        out_channels=kwargs.get(f"{name}_out_channels", channels),
        num_heads=kwargs[f"{name}_num_attention_heads"],
        head_dim=kwargs[f"{name}_attention_head_dim"],
        rope_base=defaults[f"{name}_rope_base_seq_length"],
    )


def read_scene(fixture: Fixture) -> Scene:
    """The scene of a decoding or planning fixture."""
    text, mask = fixture["prompt_embeds"][0], fixture["prompt_mask"][0]
    return Scene(fixture["cond_latents"], text, mask, fixture["history_action_state"][0, 0])


def read_draws(fixture: Fixture, config: FixtureConfig) -> Draws:
    """Every noise draw of the planning request in fixture 07. Video noise is that of the generated frames only."""
    num_iterations = fixture.meta["explore_config"]["explore_steps"]
    first = config.latent.num_memory_frames
    video = [fixture[f"video_draw.{k}"][:, :, first:] for k in range(num_iterations)]
    return Draws(
        torch.stack([rearrange(noise, "(n v) ... -> n v ...", v=config.num_views) for noise in video]),
        torch.stack([fixture[f"value_draw.{k}"] for k in range(num_iterations)]),
        fixture["video_draw.final"][:, :, first:],
        fixture["value_draw.final"][0],
        fixture["action_noise"][0],
    )


def planner_config(fixture: Fixture, mode: Mode, per_view_noise: bool = False) -> PlannerConfig:
    """The settings that a planning fixture was recorded with (paper section 4.3)."""
    explore = fixture.meta["explore_config"]
    return PlannerConfig(
        mode=mode,
        num_iterations=explore["explore_steps"],
        num_video_samples=explore["dynamic_groups"],
        num_value_samples=explore["value_groups"],
        num_flow_steps=FLOW_STEPS,
        smoothing=explore["alpha_smooth"],
        decay=explore["sigma_decay"],
        video_elite_fraction=explore["dynamic_elites"],
        value_elite_fraction=explore["value_elites"],
        per_view_noise=per_view_noise,
    )
