"""What the models are told of the settings: in this process, and as the environment of processes of their own.

Part of the composition root, called by `fleet` and, in a model's process, by `triton_model`. torch is imported only
where it is asked for: a gateway before Tritons has none.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from wavserve.app.settings import Settings
from wavserve.app.settings_sources import as_environment
from wavserve.core.spec import PolicySpec

if TYPE_CHECKING:
    from wavserve.models.runners.loading import RunnerConfig


def runner_config(settings: Settings) -> RunnerConfig:
    """What the models' loading needs of the settings, in this process or in one of Triton's."""
    from wavserve.models.runners.loading import RunnerConfig

    backend, arena = settings.backend, settings.arena
    return RunnerConfig(
        backend.device,
        backend.dtype,
        backend.threads,
        arena.num_slots,
        arena.lease_s,
        backend.max_cached_texts,
        backend.text_device,
        backend.compile,
        backend.workers,
        backend.cuda_graphs,
    )


def with_dtype(settings: Settings, spec: PolicySpec) -> Settings:
    """`backend.dtype` auto is decided once, for all processes of the models: they share an arena."""
    if settings.backend.dtype != "auto":
        return settings  # and a gateway before a Triton of its own does not import torch
    from wavserve.models.runners.loading import decided

    dtype = decided(settings.backend.dtype, spec, settings.backend.device, settings.backend.threads)
    return settings.model_copy(update={"backend": settings.backend.model_copy(update={"dtype": dtype})})


def model_environment(settings: Settings, folder: Path, arena_prefix: str) -> dict[str, str]:
    """What our Triton's models are told: our settings, with the bundle where it is and an arena of our own."""
    own = settings.model_copy(
        update={
            "bundle": settings.bundle.model_copy(update={"path": folder.resolve()}),
            "arena": settings.arena.model_copy(update={"prefix": arena_prefix}),
        }
    )
    sections = ("bundle", "backend", "arena", "planner", "log")  # planner: slots and slices must fit each other
    keys = [f"{section}.{name}" for section in sections for name in type(getattr(own, section)).model_fields]
    return as_environment(own, keys)
