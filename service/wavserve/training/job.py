"""What one call of a training command is about: recipe, data, the run's folder.

    run/vae/                       checkpoint, curves, and the finished autoencoder in model/
    run/text/                      the text encoder and the tokeniser
    run/latents/                   of each episode, encoded by that autoencoder
    run/video/ value/ action/      checkpoint and curves of the transformers' stages

Knows neither models nor losses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wavserve.core.errors import BundleError
from wavserve.training import checkpoint
from wavserve.training.checkpoint import Checkpoint
from wavserve.training.recipe import Recipe, StageName


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a command asks for."""

    recipe: Recipe
    run: Path
    report: Callable[[str], None]
    data: tuple[Path, ...] = ()
    """folders of data sets, in their order"""
    nums: tuple[int, ...] | None = None
    """first episodes of each data set; None: those that the stage began with, or all that there are"""
    checkpoint_s: float = 60.0
    """time between two checkpoints"""
    device: Literal["cpu", "cuda"] = "cpu"
    num_threads: int | None = None
    """of torch; None: one for each core"""
    start: Path | None = None
    """a run with a finished action stage, from whose weights another one starts"""

    @property
    def vae_model(self) -> Path:
        return self.run / "vae" / "model"

    @property
    def latents(self) -> Path:
        return self.run / "latents"

    @property
    def text(self) -> Path:
        return self.run / "text"

    def finished(self, stage: StageName, run: Path | None = None) -> Checkpoint:
        """The checkpoint of an earlier stage. Raises BundleError for one that is not finished, or of another recipe."""
        folder = (run or self.run) / stage
        found = checkpoint.read(folder)
        if found is None or not found.about.is_done:
            step = 0 if found is None else found.about.step
            raise BundleError(f"{folder}: expected a finished stage {stage}, got {step} steps; train it first")
        if (recipe := self.recipe.digest(stage)) != found.about.origin.recipe:
            raise BundleError(f"{folder}: expected a checkpoint of recipe {recipe}, got {found.about.origin.recipe}")
        return found

    def finished_after(self, stage: StageName, earlier: Checkpoint) -> Checkpoint:
        """As `finished`. Raises BundleError when the stage did not start from `earlier`, which was trained anew."""
        found = self.finished(stage)
        if (base := found.about.origin.base) != earlier.digest:
            expected = f"to start from the stage {earlier.about.origin.stage} {earlier.digest}"
            raise BundleError(f"{self.run / stage}: expected {expected}, got {base}")
        return found
