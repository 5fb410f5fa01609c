"""Chooses the number of threads of a call, and the number of calls that compute at a time in one process.

A small model's matrix products end before a second thread has started. Then one thread per call is faster even for a
lone robot, and the other cores run other calls. The figures are in docs/benchmarks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from wavserve.core.errors import SettingsError
from wavserve.core.spec import PolicySpec
from wavserve.models import flops
from wavserve.models.flops import Workload

SMALL_FLOPS = 1e9
"""A model is small if imagining one sample takes fewer FLOPs. `tiny` takes 0.25e9, `bench-exact`'s mid size 15e9."""
_PROMPT = 32


@dataclass(frozen=True, slots=True)
class Threads:
    """Threads of a call, and calls at a time."""

    per_call: int | None
    """None keeps torch's default"""
    workers: int


def plan_threads(spec: PolicySpec, device: torch.device, threads: int | None, workers: int | None) -> Threads:
    """The given numbers. None is replaced by a number that follows from the model's size.

    Raises SettingsError for several workers on a GPU, because calls would only wait for each other there.
    """
    if device.type != "cpu":
        if workers not in (None, 1):
            raise SettingsError(f"backend.workers: expected 1 on {device.type}, got {workers}")
        return Threads(threads, 1)
    small = _flops_of_a_sample(spec) < SMALL_FLOPS
    if threads is None and small:
        threads = 1
    if workers is None:
        workers = max(1, torch.get_num_threads() // threads) if small and threads else 1
    return Threads(threads, workers)


def _flops_of_a_sample(spec: PolicySpec) -> float:
    work = Workload(spec.model, spec.latent, spec.planner, spec.num_views, spec.chunk, _PROMPT, _PROMPT)
    return flops.fast(work).imagine
