"""Makes the bundles that need no download, all with seeded random weights.

Each bundle states that its weights are random (`untrained`, `notes`). This module knows nothing of serving.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from wavserve.bundle import bundle
from wavserve.bundle.files import atomic_folder
from wavserve.core.errors import BundleError
from wavserve.models.golden import add_golden
from wavserve.models.weights import weights
from wavserve.models.weights.preset_specs import PRESETS, Preset
from wavserve.models.weights.standins import write_text_encoder, write_tokenizer, write_vae

Progress = Callable[[float], None]
"""A function that is called with the fraction done, 0 to 1."""

_NOTES = (
    "seeded random weights (seed {seed}) in the transformers, the VAE and the text encoder, and invented normalisation "
    "statistics: for tests and measurements, never for a robot"
)


def create(
    preset: str, folder: Path, seed: int = 0, progress: Progress | None = None, with_golden: bool = True
) -> bundle.Bundle:
    """Makes the bundle of a preset at `folder`, with a golden plan. The same seed gives the same digest.

    `libero` and `piper` take some minutes and 5 GB, and 10 GB of memory for the golden plan. Raises BundleError when
    the preset is unknown or `folder` exists.
    """
    return make(find(preset), folder, seed, progress, with_golden)


def make(
    preset: Preset, folder: Path, seed: int = 0, progress: Progress | None = None, with_golden: bool = True
) -> bundle.Bundle:
    """Like `create`, from a preset that is given. Raises BundleError when `folder` exists."""
    with atomic_folder(folder) as partial:
        for part in bundle.PARTS:
            (partial / part).mkdir()
        write_vae(partial / bundle.VAE, preset.stand_ins, seed)
        write_text_encoder(partial / bundle.TEXT_ENCODER, preset.stand_ins, seed)
        write_tokenizer(partial / bundle.TOKENIZER)
        weights.save_random(preset.spec.model, partial / bundle.TRANSFORMER, seed, preset.dtype, progress)
        bundle.save_spec(partial, replace(preset.spec, notes=_NOTES.format(seed=seed)))
        if with_golden:
            add_golden(partial)
        bundle.load(partial)
    return bundle.load(folder)


def find(preset: str) -> Preset:
    """A preset by name. Raises BundleError listing the known presets."""
    if preset not in PRESETS:
        raise BundleError(f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}")
    return PRESETS[preset]()
