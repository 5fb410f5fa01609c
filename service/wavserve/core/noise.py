"""Named noise: a name gives the same numbers in every process, so a call carries names instead of tensors.

A draw depends on its name alone, never on how samples are sliced or batched. Knows numpy only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Stream(IntEnum):
    """The noise that a name belongs to. Streams never overlap."""

    VIDEO = 0
    VALUE = 1
    ACTION = 2
    SCORE = 3


FINAL = -1
"""The iteration number of the draw that is decoded after planning. As an unsigned counter it is the largest value."""

_WORD = (1 << 64) - 1


def draw(
    key: tuple[int, int], stream: Stream, iteration: int, sample: int, shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """The standard normals `[*shape]` float32 of one name.

    They come from `Philox(key=(seed, sequence), counter=(stream, iteration, sample))`. The lowest counter word is
    Philox's own: it counts up during a draw.
    """
    counter = np.array([0, sample & _WORD, iteration & _WORD, int(stream)], dtype=np.uint64)
    bits = np.random.Philox(key=np.array([key[0] & _WORD, key[1] & _WORD], dtype=np.uint64), counter=counter)
    return np.random.Generator(bits).standard_normal(shape, dtype=np.float32)


def draw_many(
    key: tuple[int, int], stream: Stream, iteration: int, samples: Iterable[int], shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """Standard normals `[len(samples), *shape]` float32, one `draw` per sample, in the given order."""
    return np.stack([draw(key, stream, iteration, sample, shape) for sample in samples])


def call_noise(inputs: Mapping[str, NDArray[Any]], stream: Stream, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The noise `[G, ..., *shape]` of one backend call, with its Gaussians applied.

    The standard normals are the input `noise` where the call has it. Otherwise they are drawn from `noise_key [G, 2]`
    and `noise_name [G, ..., 2]` = (iteration, sample). The inputs `mean` and `std` `[G, ...]` scale them where given.
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
    num_sample_axes = draws.ndim - len(shape) - 1
    mean, std = (np.expand_dims(inputs[name], tuple(range(1, 1 + num_sample_axes))) for name in ("mean", "std"))
    noise: NDArray[np.float32] = draws * std + mean
    return noise
