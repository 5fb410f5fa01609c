"""The subject of the parity checks: a folder's models, plain and fast, and the comparison of one tensor.

This module knows no fixture by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from einops import rearrange
from torch import Tensor

from wavserve.core.errors import BundleError
from wavserve.models.fast.expert import FastAction, FastValue
from wavserve.models.fast.video import FastVideo
from wavserve.models.networks.plain import Plain
from wavserve.models.parity.fixtures import Check, Fixture, FixtureConfig, read_config, read_fixture
from wavserve.models.weights.weights import Models, load

Compared = tuple[str, str, Tensor, Tensor]
"""Path, tensor name, ours, theirs."""


@dataclass(frozen=True, slots=True)
class Subject:
    """The models under test: those of the folder, with their plain and fast paths."""

    folder: Path
    config: FixtureConfig
    models: Models
    plain: Plain
    video: FastVideo
    value: FastValue
    action: FastAction

    def other(self, name: str) -> Fixture:
        """Another fixture, whose tensors are inputs of the current one. Raises BundleError when it is missing."""
        fixture = read_fixture(self.folder, name)
        if fixture is None:
            raise BundleError(f"{self.folder}: expected fixture {name}, which another fixture needs")
        return fixture


def read_subject(folder: Path, device: str = "cpu") -> Subject:
    """Configuration and weights of a fixture folder. Raises BundleError when they are missing or do not match."""
    config = read_config(folder)
    models = load(folder / "weights.safetensors", config.model, device)
    return Subject(
        folder,
        config,
        models,
        Plain(models, config.model, config.latent),
        FastVideo(models.video, config.model, config.latent, config.num_views),
        FastValue(models.value, config.model, config.value_chunk),
        FastAction(models.action, config.model, config.action_chunk),
    )


def compared(fixture: str, path: str, tensor: str, ours: Tensor, theirs: Tensor) -> Check:
    """The check of one tensor. Integer tensors are elites and are compared as sets.

    Raises BundleError when the shapes differ.
    """
    if ours.shape != theirs.shape:
        raise BundleError(f"fixture {fixture} {tensor}: expected shape {tuple(theirs.shape)}, got {tuple(ours.shape)}")
    if not theirs.is_floating_point():
        return Check(fixture, path, tensor, float(len(set(ours.tolist()) ^ set(theirs.tolist()))), tolerance=0.0)
    return Check(fixture, path, tensor, (ours - theirs).abs().max().item())


def unpadded(text: Tensor, mask: Tensor) -> Tensor:
    """The tokens of `text [P, C]` whose `mask [P]` is not 0."""
    return text[mask.bool()]


def buffers(fixture: Fixture, name: str, config: FixtureConfig, num_views: int = 1) -> list[Tensor]:
    """The recorded features `[B, V*L, C]` after each block."""
    recorded = (fixture[f"{name}.{layer}"] for layer in range(config.model.video.num_layers))
    return [rearrange(buffer, "(b v) l c -> b (v l) c", v=num_views) for buffer in recorded]


def layers(path: str, name: str, ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> Iterator[Compared]:
    """The comparisons of the features after each block."""
    for layer, (our_features, their_features) in enumerate(zip(ours, theirs, strict=True)):
        yield path, f"{name}.{layer}", our_features, their_features


def row_of(features: Sequence[Tensor], b: int) -> list[Tensor]:
    """The features of sample `b`, with a batch axis of 1."""
    return [feature[b : b + 1] for feature in features]
