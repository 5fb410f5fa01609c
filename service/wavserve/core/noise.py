"""Named noise: the same numbers wherever they are drawn, so that calls carry names and not tensors.

Used by the planner (to refit on elites) and by the model runners (to draw). Knows numpy only. A draw depends on its
name alone, never on how samples were sliced or batched.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Stream(IntEnum):
    """Which noise a name belongs to; streams never overlap."""

    VIDEO = 0
    VALUE = 1
    ACTION = 2
    SCORE = 3


FINAL = -1
"""The iteration number of the draw that is decoded after planning (stored as the largest unsigned counter)."""

_WORD = (1 << 64) - 1


def draw(
    key: tuple[int, int], stream: Stream, iteration: int, sample: int, shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """Standard normals `[*shape]` float32 of one name.

    `Philox(key=(seed, sequence), counter=(stream, iteration, sample))`; the lowest counter word is left to Philox
    itself, which counts it up while it draws.
    """
    counter = np.array([0, sample & _WORD, iteration & _WORD, int(stream)], dtype=np.uint64)
    bits = np.random.Philox(key=np.array([key[0] & _WORD, key[1] & _WORD], dtype=np.uint64), counter=counter)
    return np.random.Generator(bits).standard_normal(shape, dtype=np.float32)


def draw_many(
    key: tuple[int, int], stream: Stream, iteration: int, samples: Iterable[int], shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """Standard normals `[len(samples), *shape]` float32, one `draw` a sample, in the order given."""
    return np.stack([draw(key, stream, iteration, sample, shape) for sample in samples])


def of_call(inputs: Mapping[str, NDArray[Any]], stream: Stream, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The noise of one backend call `[G, ..., *shape]`, its Gaussians applied.

    Drawn from `noise_key [G, 2]` and `noise_name [G, ..., 2]` = (iteration, sample), unless the call brings its own
    standard normals as `noise`; then scaled by `mean` and `std` `[G, ...]` where the call has them.
    """
    if "noise" in inputs:
        draws = inputs["noise"]
    else:
        names = inputs["noise_name"]
        flat = [
            draw((int(key[0]), int(key[1])), stream, int(iteration), int(sample), shape)
            for key, group in zip(inputs["noise_key"], names, strict=True)
            for iteration, sample in group.reshape(-1, 2)
        ]
        draws = np.stack(flat).reshape(*names.shape[:-1], *shape)
    if "mean" not in inputs:
        return draws
    samples = draws.ndim - len(shape) - 1
    mean, std = (np.expand_dims(inputs[name], tuple(range(1, 1 + samples))) for name in ("mean", "std"))
    noise: NDArray[np.float32] = draws * std + mean
    return noise
