"""The training loop, the same for every stage: steps, progress, held-out figures, checkpoints, curves.

A run that is killed and goes on from its checkpoint ends with the same weights as one that is not. Knows neither the
models nor the losses.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from wavserve.core.errors import BundleError
from wavserve.training import checkpoint, curves
from wavserve.training.checkpoint import About, Checkpoint, Origin, required
from wavserve.training.trainer import Trainer

CURVES = "curves.svg"
_POINT_STEPS = 20
"""steps whose mean is one point of a curve; a checkpoint is written between two points"""
_FIRST_LINE = 5
"""steps after which the time left is told for the first time"""
_LINE_S = 30.0

Terms = dict[str, float]


@dataclass(frozen=True, slots=True)
class Run:
    """Where a stage's training is kept, and who is told."""

    folder: Path
    origin: Origin
    evaluate_every: int
    report: Callable[[str], None]
    checkpoint_s: float = 60.0
    """time between two checkpoints"""
    clock: Callable[[], float] = time.monotonic


@dataclass(slots=True)
class Curve:
    """Points of terms by step. Terms that are not measured at a point are missing there."""

    points: list[Terms] = field(default_factory=list)

    @property
    def terms(self) -> tuple[str, ...]:
        """Of all points, sorted."""
        return tuple(sorted({name for point in self.points for name in point} - {"step"}))

    def rows(self) -> NDArray[np.float32]:
        """`[n, 1 + terms]`, the step first; NaN where a term is missing."""
        names = ("step", *self.terms)
        rows = [[point.get(name, math.nan) for name in names] for point in self.points]
        return np.array(rows, np.float32).reshape(len(rows), len(names))

    @classmethod
    def of(cls, saved: Checkpoint) -> Curve:
        """Raises BundleError for a checkpoint without its curve."""
        names = ("step", *saved.about.terms)
        curve = required(saved.tensors, ["curve"])["curve"]
        if curve.shape[1:] != (len(names),):
            raise BundleError(f"checkpoint: curve: expected {len(names)} columns, got shape {list(curve.shape)}")
        rows = curve.tolist()
        return cls([{n: v for n, v in zip(names, row, strict=True) if not math.isnan(v)} for row in rows])


def train(trainer: Trainer, run: Run, saved: Checkpoint | None) -> None:
    """All steps left after a checkpoint (None: all). Writes checkpoint and curves now and then, and at the end.

    Raises BundleError when a loss is not finite. The last checkpoint stays.
    """
    curve, before = Curve(), 0.0
    if saved is not None:
        trainer.restore(saved)
        curve, before = Curve.of(saved), saved.about.seconds
    progress = _Progress(run, trainer.step, trainer.num_steps, before)
    recent: list[Terms] = []
    while not trainer.is_done:
        recent.append(trainer.advance())
        progress.tell(trainer.step, recent)
        if trainer.step % _POINT_STEPS == 0 or trainer.is_done:
            curve.points.append({"step": float(trainer.step), **means(recent), **_held_out(trainer, run)})
            recent.clear()
            if progress.is_checkpoint_due():
                _save(trainer, run, curve, progress.seconds)
    _save(trainer, run, curve, progress.seconds)


def means(recent: Sequence[Terms]) -> Terms:
    """The mean of each term over the steps that had it."""
    names = dict.fromkeys(name for terms in recent for name in terms)
    return {name: float(np.mean([terms[name] for terms in recent if name in terms])) for name in names}


def _held_out(trainer: Trainer, run: Run) -> Terms:
    """Figures on held-out episodes where they are due."""
    is_due = trainer.step >= run.evaluate_every and trainer.step % run.evaluate_every < _POINT_STEPS
    if not (is_due or trainer.is_done):
        return {}
    figures = trainer.evaluate()
    run.report(f"{run.origin.stage} {trainer.step}/{trainer.num_steps}: held out: {_shown(figures)}")
    return {f"held out, {name}": value for name, value in figures.items()}


def _save(trainer: Trainer, run: Run, curve: Curve, seconds: float) -> None:
    """Writes the checkpoint, then the curves."""
    rows = curve.rows()
    about = About(run.origin, trainer.step, trainer.num_steps, curve.terms, seconds)
    tensors = {"curve": torch.from_numpy(rows), **trainer.tensors()}
    checkpoint.write(run.folder, Checkpoint(about, tensors))
    title = f"{run.origin.stage}, {trainer.step} of {trainer.num_steps} steps"
    checkpoint.write_whole(run.folder / CURVES, curves.draw(title, curve.terms, rows).encode())


class _Progress:
    """What is told of a run, and when."""

    def __init__(self, run: Run, first: int, num_steps: int, before: float) -> None:
        self._run, self._first, self._num_steps, self._before = run, first, num_steps, before
        self._began = self._written = run.clock()
        self._told = -math.inf

    @property
    def seconds(self) -> float:
        """Of training, with those before the checkpoint."""
        return self._before + self._run.clock() - self._began

    def is_checkpoint_due(self) -> bool:
        """Whether the last checkpoint is old. The caller then writes one."""
        now = self._run.clock()
        if now - self._written < self._run.checkpoint_s:
            return False
        self._written = now
        return True

    def tell(self, step: int, recent: Sequence[Terms]) -> None:
        """Reports a line after the first few steps, and then at most twice a minute."""
        now, done = self._run.clock(), step - self._first
        if done != _FIRST_LINE and (done < _FIRST_LINE or now - self._told < _LINE_S):
            return
        self._told = now
        per_s = done / max(now - self._began, 1e-9)
        left = _duration((self._num_steps - step) / per_s)
        at = f"{self._run.origin.stage} {step}/{self._num_steps}"
        self._run.report(f"{at}: {_shown(means(recent))}; {per_s:.2f} steps/s, {left} left")


def _shown(terms: Terms) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in terms.items())


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.0f} min"
