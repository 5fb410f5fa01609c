"""Loads runners from a bundle on disk: all four around one arena, or one for its own process.

It applies a RunnerConfig: devices, types, threads, compilation. It reads no settings and knows no backend.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch

from wavserve.bundle.bundle import TRANSFORMER, Bundle
from wavserve.core.errors import BundleError, SettingsError
from wavserve.core.spec import PolicySpec
from wavserve.core.verbs import MODELS
from wavserve.models.arena.arena import Arena, ArenaFinder, SlotShape
from wavserve.models.arena.book import ArenaBook
from wavserve.models.fast.expert import FastAction, FastValue
from wavserve.models.fast.fused import block
from wavserve.models.fast.graphs import cuda_capture
from wavserve.models.fast.guided import GuidedAction
from wavserve.models.fast.video import FastVideo
from wavserve.models.networks.expert import ExpertDiT
from wavserve.models.networks.video import VideoDiT
from wavserve.models.runners import precision
from wavserve.models.runners.calls import Runner
from wavserve.models.runners.experts import ActionRunner, ValueRunner
from wavserve.models.runners.threads import Threads, plan_threads
from wavserve.models.runners.video import VideoRunner
from wavserve.models.weights import weights
from wavserve.system.lookups import Lookups

log = logging.getLogger(__name__)

Fast = TypeVar("Fast", FastVideo, FastValue, FastAction)
Expert = TypeVar("Expert", FastValue, FastAction)

DYNAMIC_ROWS, DYNAMIC_LENGTH = 0, 2
"""The axis of a context's keys and values `[R, heads, L, d]` whose length varies between calls: R or L."""


@dataclass(frozen=True, slots=True)
class RunnerConfig:
    """Device, type, threads, caches and compilation of the models."""

    device: str
    """auto, cpu or cuda"""
    dtype: str
    """float32 or bfloat16; `resolve_dtype` turns auto into one of them"""
    threads: int | None
    """torch threads of a call; None: by the model's size"""
    num_slots: int
    """slots of the feature arena"""
    lease_s: float
    """seconds after which an unreleased slot is free again"""
    max_texts: int
    """instructions whose keys and values are cached"""
    text_device: str = "auto"
    """device of the text encoder; auto: the device of the other models"""
    compile: str = "off"
    """compilation of the blocks: auto, on or off"""
    workers: int | None = 1
    """calls that compute at a time in one process; None: by the model's size"""
    cuda_graphs: str = "off"
    """CUDA graphs of the experts: auto (on a GPU), on or off"""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The runners by model name, and the arena that they share."""

    runners: dict[str, Runner]
    arena: Arena
    workers: int
    """maximum number of calls that compute at a time"""


def load_runners(bundle: Bundle, config: RunnerConfig) -> Loaded:
    """Loads every model of a bundle into this process. Raises BundleError."""
    device, dtype = parse_device(config.device), parse_dtype(config.dtype)
    threads = apply_threads(bundle.spec, config)
    weights.check(bundle.folder / TRANSFORMER, bundle.spec.model)
    book = ArenaBook(config.num_slots, config.lease_s)
    arena = Arena.in_process(SlotShape.of(bundle.spec), book, dtype, device)
    return Loaded({model: load_runner(model, bundle, arena, config) for model in MODELS}, arena, threads.workers)


def load_runner(model: str, bundle: Bundle, arenas: ArenaFinder, config: RunnerConfig) -> Runner:
    """Loads one model of a bundle on the arena's device. For `video_dit`, `arenas` must be the arena itself.

    Raises BundleError, and SettingsError for a device that does not exist.
    """
    spec, folder, device, dtype = bundle.spec, bundle.folder / TRANSFORMER, arenas.device, parse_dtype(config.dtype)
    if config.cuda_graphs == "on" and device.type != "cuda":
        raise SettingsError(f"backend.cuda_graphs: on expects models on cuda, got {device.type}; try auto")
    match model:
        case "encoder":
            text_device = (
                device if config.text_device == "auto" else parse_device(config.text_device, "backend.text_device")
            )
            return _encoder_runner(bundle, device, text_device, dtype)
        case "video_dit":
            assert isinstance(arenas, Arena), "only the owner of an arena writes features"
            dit = weights.load_video(folder, spec.model, device, dtype)
            return _video_runner(dit, spec, arenas, config.max_texts, config.compile)
        case "value_dit":
            expert = weights.load_expert(folder, spec.model, "value", device, dtype)
            return _value_runner(expert, spec, arenas, config.compile, config.cuda_graphs)
        case "action_dit":
            expert = weights.load_expert(folder, spec.model, "action", device, dtype)
            return _action_runner(expert, spec, arenas, config.compile, config.cuda_graphs)
        case _:
            raise BundleError(f"model: expected one of {', '.join(MODELS)}, got {model!r}")


def lookups_of(runner: Runner) -> Mapping[str, Lookups]:
    """Of the runner's own caches, by name: `text`, the keys and values of instructions."""
    return {"text": runner.text_lookups} if isinstance(runner, VideoRunner) else {}


def arena_for(spec: PolicySpec, num_slots: int, device: str = "cpu") -> Arena:
    """A float32 arena whose leases never expire. It is for checks, not for serving."""
    book = ArenaBook(num_slots, lease_s=math.inf)
    return Arena.in_process(SlotShape.of(spec), book, torch.float32, torch.device(device))


def transformer_runners(
    models: weights.Models,
    spec: PolicySpec,
    arena: Arena,
    max_texts: int,
    compile_mode: str = "off",
    cuda_graphs: str = "off",
) -> dict[str, Runner]:
    """The runners of the three transformers around one arena. The modes are those of `RunnerConfig`."""
    return {
        "video_dit": _video_runner(models.video, spec, arena, max_texts, compile_mode),
        "value_dit": _value_runner(models.value, spec, arena, compile_mode, cuda_graphs),
        "action_dit": _action_runner(models.action, spec, arena, compile_mode, cuda_graphs),
    }


def _encoder_runner(bundle: Bundle, device: torch.device, text_device: torch.device, dtype: torch.dtype) -> Runner:
    # imported late: diffusers and transformers take seconds and 200 MB, which only the encoder's process needs
    from wavserve.models.networks.encoder import Encoder
    from wavserve.models.runners.encoder import EncoderRunner

    return EncoderRunner(Encoder(bundle.folder, str(device), dtype, str(text_device)))


def _video_runner(dit: VideoDiT, spec: PolicySpec, arena: Arena, max_texts: int, compile_mode: str = "off") -> Runner:
    make = partial(FastVideo, dit, spec.model, spec.latent, spec.num_views)
    # a call has one instruction, and its length varies
    return VideoRunner(_built("video_dit", make, DYNAMIC_LENGTH, compile_mode, arena.device), spec, arena, max_texts)


def _value_runner(
    dit: ExpertDiT, spec: PolicySpec, arenas: ArenaFinder, compile_mode: str = "off", cuda_graphs: str = "off"
) -> Runner:
    contexts = [SlotShape.of(spec).video_tokens]
    make = partial(FastValue, dit, spec.model, spec.num_value_tokens, contexts=contexts)
    return ValueRunner(_expert("value_dit", make, compile_mode, cuda_graphs, arenas.device), spec, arenas)


def _action_runner(
    dit: ExpertDiT, spec: PolicySpec, arenas: ArenaFinder, compile_mode: str = "off", cuda_graphs: str = "off"
) -> Runner:
    shape = SlotShape.of(spec)
    make = partial(FastAction, dit, spec.model, spec.chunk, contexts=[shape.video_tokens, shape.value_tokens])
    model = _expert("action_dit", make, compile_mode, cuda_graphs, arenas.device)
    return ActionRunner(model, GuidedAction(dit, spec.chunk), spec, arenas)


def _expert(
    name: str, make: Callable[..., Expert], compile_mode: str, cuda_graphs: str, device: torch.device
) -> Expert:
    """An expert's fast path, with CUDA graphs if they are on (auto: on a GPU)."""
    model = _built(name, make, DYNAMIC_ROWS, compile_mode, device)
    if cuda_graphs == "on" or (cuda_graphs == "auto" and device.type == "cuda"):
        model.use_graphs(cuda_capture())
    return model


def _built(name: str, make: Callable[..., Fast], dynamic_axis: int, compile_mode: str, device: torch.device) -> Fast:
    """A fast path, compiled if `compile_mode` is on (auto: if compilation works on this machine)."""
    if compile_mode == "off":
        return make(run_block=block)
    # imported late: torch's compiler takes a second and 60 MB, which uncompiled models do not need
    from wavserve.models.fast.compiling import compiled

    return compiled(name, make, dynamic_axis, device, required=compile_mode == "on")


def apply_threads(spec: PolicySpec, config: RunnerConfig) -> Threads:
    """Sets torch's threads for the whole process. Call it once, before any computation. Raises SettingsError."""
    threads = plan_threads(spec, parse_device(config.device), config.threads, config.workers)
    if threads.per_call is not None:
        torch.set_num_threads(threads.per_call)
    return threads


def resolve_dtype(dtype: str, spec: PolicySpec, device: str, threads: int | None = None) -> str:
    """Returns `float32` or `bfloat16`. For `auto` it measures this machine on the policy's sizes and logs the result.

    `threads` is the number of threads of a call in that measurement; None: by the model's size. Raises SettingsError as
    `parse_device` does.
    """
    if dtype != "auto":
        return dtype
    before, per_call = torch.get_num_threads(), plan_threads(spec, parse_device(device), threads, None).per_call
    torch.set_num_threads(per_call or before)
    try:
        chosen, gain = precision.choose(spec.model, spec.latent, spec.num_views, parse_device(device))
    finally:
        torch.set_num_threads(before)
    log.info("backend.dtype auto: %s, because bfloat16 is %.2f times as fast as float32 here", chosen, gain)
    return chosen


def parse_dtype(name: str) -> torch.dtype:
    """The type of that name. Raises SettingsError for `auto`: separate processes must not each choose a type."""
    if name == "auto":
        raise SettingsError("backend.dtype: a Triton that no gateway started needs float32 or bfloat16, got auto")
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def parse_device(name: str, setting: str = "backend.device") -> torch.device:
    """The device of that name; auto: CUDA if available. Raises SettingsError naming `setting` if CUDA is missing."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise SettingsError(f"{setting}: expected a CUDA device that torch can use, got none; try auto or cpu")
    return torch.device(name)
