"""One model in its own process: loads its part of a bundle, answers its verbs, and describes itself.

The video model's process creates the shared feature arena. The processes of the value and action models attach to it.
This module knows nothing of Triton.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from wavserve.bundle import bundle
from wavserve.bundle.bundle import Bundle
from wavserve.bundle.golden import Golden, pack
from wavserve.core.errors import BackendError
from wavserve.core.tensor_cache import Receiver
from wavserve.core.types import Tensors
from wavserve.core.verbs import ABOUT, ARENA_OWNER, DESCRIBE, GOLDEN, VERBS, fingerprints
from wavserve.models import memory
from wavserve.models.arena.arena import ArenaFinder, SlotShape
from wavserve.models.arena.shared import ArenaConfig, AttachedArenas, SharedArena
from wavserve.models.runners.calls import CancelCheck, Runner
from wavserve.models.runners.loading import (
    RunnerConfig,
    apply_threads,
    load_runner,
    lookups_of,
    parse_device,
    parse_dtype,
)
from wavserve.system.lookups import Lookups
from wavserve.system.processes import Process


@dataclass(frozen=True, slots=True)
class Host:
    """A loaded model. Only one thread at a time may call `run`."""

    model: str
    runner: Runner
    facts: dict[str, Any]
    """the constant part of `describe`: model, digest, device, dtype, policy, verbs"""
    device: torch.device
    golden: Golden | None
    arena: SharedArena | None
    """the arena that the video model owns; None in other models"""
    received: Receiver
    memory: Mapping[str, Callable[[], float]]
    """readings of this process's memory, by the names of `system.memory.MEMORY`"""
    lookups: Mapping[str, Lookups]
    """of this process's caches, by name: those of the runner, and `tensors`, rows that a gateway sent before"""

    def run(self, verb: str, inputs: Tensors, cancelled: CancelCheck) -> Tensors:
        """The outputs of one call. Raises TensorMiss, Cancelled, and the runner's errors."""
        if verb == DESCRIBE:
            return {ABOUT: np.frombuffer(json.dumps(self.about()).encode(), np.uint8)}
        if verb == GOLDEN and self.model == ARENA_OWNER and self.golden is not None:
            return {ABOUT: np.frombuffer(pack(self.golden), np.uint8)}
        if verb not in VERBS or VERBS[verb].model != self.model:
            raise BackendError(f"verb: expected one of model {self.model}, got {verb!r}")
        whole = self.received.unfold(inputs, VERBS[verb].cached)
        with torch.inference_mode():
            return self.runner.run(verb, whole, cancelled)

    def about(self) -> dict[str, Any]:
        """The model's description. It first runs a small computation to verify the device.

        Raises BackendError when the device computes wrongly.
        """
        if torch.ones(8, device=self.device).sum().item() != 8.0:
            raise BackendError(f"{self.model}: expected 8 as the sum of eight ones on {self.device}, got another")
        book = None if self.arena is None else self.arena.book
        arena = None if book is None else {"used": book.used, "slots": book.num_slots}
        memory = {name: reading() for name, reading in self.memory.items()}
        return {**self.facts, "process": [*Process.me()], "arena": arena, "memory": memory}

    def close(self) -> None:
        if self.arena is not None:
            self.arena.close()


def load(model: str, opened: Bundle, config: RunnerConfig, prefix: str) -> Host:
    """Loads one model of a bundle. `prefix` is the prefix of the slab names. Raises BundleError, SettingsError."""
    apply_threads(opened.spec, config)
    device, dtype = parse_device(config.device), parse_dtype(config.dtype)
    shared = ArenaConfig(prefix, SlotShape.of(opened.spec), config.num_slots, config.lease_s, dtype, device)
    arena = SharedArena.create(shared) if model == ARENA_OWNER else None
    arenas: ArenaFinder = arena or AttachedArenas(shared)
    try:
        runner = load_runner(model, opened, arenas, config)
        facts = {
            "model": model,
            "digest": bundle.digest(opened.folder),
            "device": device.type,
            "dtype": config.dtype,
            "golden_digest": "" if opened.golden is None else opened.golden.digest,
            "policy": bundle.document(opened.spec),
            "verbs": fingerprints(model),
        }
    except BaseException:
        if arena is not None:
            arena.close()
        raise
    received = Receiver()
    is_sent_keys = any(verb.cached for verb in VERBS.values() if verb.model == model)
    lookups = {**({"tensors": received.lookups} if is_sent_keys else {}), **lookups_of(runner)}
    readings = memory.readings(device, arena)
    return Host(model, runner, facts, device, opened.golden, arena, received, readings, lookups)
