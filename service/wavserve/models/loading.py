"""From a bundle on disk to the four runners that share one feature arena.

Called by whoever hosts the models: the composition root for the in-process backend, a Triton model for its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from wavserve.bundle import TRANSFORMER, Bundle
from wavserve.errors import SettingsError
from wavserve.models import weights
from wavserve.models.arena import Arena, SlotShape
from wavserve.models.arena_book import ArenaBook
from wavserve.models.calls import Runner
from wavserve.models.encoder import Encoder
from wavserve.models.encoder_runner import EncoderRunner
from wavserve.models.expert_runners import ActionRunner, ValueRunner
from wavserve.models.fast_expert import FastAction, FastValue
from wavserve.models.fast_video import FastVideo
from wavserve.models.video_runner import VideoRunner
from wavserve.spec import PolicySpec


@dataclass(frozen=True, slots=True)
class RunnerConfig:
    """Where and in what the models run, and how much they keep."""

    device: str
    """auto, cpu or cuda"""
    dtype: str
    """float32 or bfloat16"""
    threads: int | None
    num_slots: int
    lease_s: float
    max_texts: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """The runners by model name, and the arena they share."""

    runners: dict[str, Runner]
    arena: Arena


def load_runners(bundle: Bundle, config: RunnerConfig) -> Loaded:
    """Loads every model of a bundle. Raises BundleError."""
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    spec, device, dtype = bundle.spec, _device(config.device), getattr(torch, config.dtype)
    models = weights.load(bundle.folder / TRANSFORMER, spec.model, device, dtype)
    arena = Arena(SlotShape.of(spec), ArenaBook(config.num_slots, config.lease_s), dtype, device)
    encoder = EncoderRunner(Encoder(bundle.folder, str(device), dtype))
    return Loaded({"encoder": encoder, **transformer_runners(models, spec, arena, config.max_texts)}, arena)


def arena_for(spec: PolicySpec, num_slots: int) -> Arena:
    """A float32 arena in main memory whose leases never run out: for checks, not for serving."""
    return Arena(SlotShape.of(spec), ArenaBook(num_slots, lease_s=math.inf), torch.float32, torch.device("cpu"))


def transformer_runners(models: weights.Models, spec: PolicySpec, arena: Arena, max_texts: int) -> dict[str, Runner]:
    """The runners of the three transformers around one arena."""
    video = FastVideo(models.video, spec.model, spec.latent, spec.num_views)
    value = FastValue(models.value, spec.model, spec.num_value_tokens)
    action = FastAction(models.action, spec.model, spec.chunk)
    return {
        "video_dit": VideoRunner(video, spec, arena, max_texts),
        "value_dit": ValueRunner(value, spec, arena),
        "action_dit": ActionRunner(action, spec, arena),
    }


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise SettingsError("backend.device: expected a CUDA device that torch can use, got none; try auto or cpu")
    return torch.device(name)
