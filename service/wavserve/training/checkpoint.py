"""The checkpoint of a stage: one safetensors file with everything that its training goes on from.

Weights, their average, AdamW's moments, the curve so far, and what the run is: stage, step, digests of the recipe and
of the data. There is no state of a random generator, because every draw is named by its step. Knows no model.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from wavserve.core import files
from wavserve.core.errors import BundleError, InvalidRequest

FILE = "checkpoint.safetensors"
LOCK = ".lock"
_ABOUT = "about"


@dataclass(frozen=True, slots=True)
class Origin:
    """What a run is made from. A checkpoint goes on only where all of it is the same."""

    stage: str
    recipe: str
    """digest of the recipe, as far as the stage depends on it"""
    data: str
    """digest of the first `num_episodes` episodes"""
    num_episodes: int
    base: str
    """digest of the weights that the stage started from; empty for the first stage"""
    nums: tuple[int, ...] = ()
    """episodes of each data set, where there are several"""
    autoencoder: str = ""
    """digest of the autoencoder whose latents the stage learns, where the stage started from another run's weights"""


@dataclass(frozen=True, slots=True)
class About:
    """A checkpoint's facts."""

    origin: Origin
    step: int
    num_steps: int
    terms: tuple[str, ...]
    """names of the curve's columns after the step"""
    seconds: float
    """of training so far"""

    @property
    def is_done(self) -> bool:
        return self.step >= self.num_steps


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Facts and tensors; a tensor's name begins with its kind: `weights.`, `average.`, `first.`, `second.`, `fixed.`"""

    about: About
    tensors: Mapping[str, Tensor]

    def of(self, kind: str) -> dict[str, Tensor]:
        """The tensors of one kind, by the name after it."""
        return {name.removeprefix(f"{kind}."): t for name, t in self.tensors.items() if name.startswith(f"{kind}.")}

    @property
    def digest(self) -> str:
        """sha256 (hex) of what later stages start from: the averaged weights and the fixed numbers."""
        digest = hashlib.sha256()
        for name in sorted(self.tensors):
            if name.startswith(("average.", "fixed.")):
                digest.update(f"{name}\0".encode() + self.tensors[name].contiguous().numpy().tobytes())
        return digest.hexdigest()


def write(folder: Path, checkpoint: Checkpoint) -> None:
    """Replaces the checkpoint in `folder`. A process killed at any moment leaves the old one or the new one."""
    about = {_ABOUT: json.dumps(_facts(checkpoint.about)), "format": "pt"}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
    write_whole(folder / FILE, save(tensors, metadata=about))


def _facts(about: About) -> dict[str, Any]:
    """As JSON has them. Facts that most runs lack are left out, so that earlier versions read a checkpoint of those."""
    facts = asdict(about)
    facts["origin"] = {name: v for name, v in facts["origin"].items() if v or name not in ("nums", "autoencoder")}
    return facts


def write_whole(path: Path, content: bytes) -> None:
    """Replaces a file by a whole new one that is on the disk before it has the name. Raises BundleError."""
    try:
        files.write_whole(path, content)
    except OSError as error:
        raise BundleError(f"{path}: expected a disk that takes the file: {error}") from error


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keeps other processes from training in a folder, which is made. Raises InvalidRequest when one does so now."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = files.lock(folder / LOCK)
    except OSError as error:
        raise InvalidRequest("--folder", "a folder that can be written", error) from error
    if lock is None:
        raise InvalidRequest("--folder", "a run that no other process trains", folder)
    try:
        yield
    finally:
        os.close(lock)


def read(folder: Path) -> Checkpoint | None:
    """The checkpoint of a stage's folder; None where there is none. Raises BundleError for a damaged file."""
    path = folder / FILE
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            known = json.loads(file.metadata()[_ABOUT])
            origin = known.pop("origin")
            origin = Origin(**{**origin, "nums": tuple(origin.get("nums", ()))})
            about = About(origin=origin, **{**known, "terms": tuple(known["terms"])})
            return Checkpoint(about, {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{path}: expected a whole checkpoint: {error!r}") from error


def required(tensors: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
    """Tensors by name. Raises BundleError naming the first one that is missing."""
    for name in names:
        if name not in tensors:
            raise BundleError(f"checkpoint: expected a tensor {name}, got none")
    return {name: tensors[name] for name in names}


def check_origin(path: Path, found: Origin, expected: Origin) -> None:
    """Raises BundleError with both digests when a checkpoint is of another recipe, data set, start or autoencoder."""
    for name, what in (("stage", "stage"), ("recipe", "recipe"), ("data", "data set"), ("base", "earlier stage")):
        ours, theirs = getattr(expected, name), getattr(found, name)
        if ours != theirs:
            raise BundleError(f"{path}: expected a checkpoint of {what} {ours or 'none'}, got {theirs or 'none'}")
    if found.autoencoder not in ("", expected.autoencoder):  # earlier versions did not tell it
        raise BundleError(
            f"{path}: expected latents of the autoencoder {expected.autoencoder}, got {found.autoencoder}"
        )
