"""The models' part of the settings: a configuration in this process, environment variables for other processes.

Part of the composition root. torch is imported only where it is needed, because a gateway in front of Tritons has none.
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
    """The settings for loading models, in this process or in one of Triton's."""
    from wavserve.models.runners.loading import RunnerConfig

    backend, arena = settings.backend, settings.arena
    return RunnerConfig(
        device=backend.device,
        dtype=backend.dtype,
        threads=backend.threads,
        num_slots=arena.num_slots,
        lease_s=arena.lease_s,
        max_texts=backend.max_cached_texts,
        text_device=backend.text_device,
        compile=backend.compile,
        workers=backend.workers,
        cuda_graphs=backend.cuda_graphs,
    )


def with_dtype(settings: Settings, spec: PolicySpec) -> Settings:
    """Replaces `backend.dtype` auto, once for all processes of the models, because they share an arena."""
    if settings.backend.dtype != "auto":
        return settings  # a gateway with an embedded Triton then imports no torch
    from wavserve.models.runners.loading import resolve_dtype

    dtype = resolve_dtype(settings.backend.dtype, spec, settings.backend.device, settings.backend.threads)
    return settings.model_copy(update={"backend": settings.backend.model_copy(update={"dtype": dtype})})


def model_environment(settings: Settings, folder: Path, arena_prefix: str) -> dict[str, str]:
    """Variables for the models of our own Triton: our settings, the bundle's absolute folder, our own arena prefix."""
    own = settings.model_copy(
        update={
            "bundle": settings.bundle.model_copy(update={"path": folder.resolve()}),
            "arena": settings.arena.model_copy(update={"prefix": arena_prefix}),
        }
    )
    sections = ("bundle", "backend", "arena", "planner", "log")  # planner: arena.num_slots is checked against it
    keys = [f"{section}.{name}" for section in sections for name in type(getattr(own, section)).model_fields]
    return as_environment(own, keys)
