"""The feature arena: a slab of fixed-size slots where video features wait for the value and action models.

Written by the video runner, read by the other two; the rules are in `arena_book`. In this process the slab is a tensor.
It is laid out layer by layer, so that one layer of neighbouring slots is one contiguous block for a matrix product.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wavserve.models.arena_book import ArenaBook
from wavserve.spec import PolicySpec


@dataclass(frozen=True, slots=True)
class SlotShape:
    """What one slot holds: video features `[layers, V*L, C]` and value features `[layers, T, C]`."""

    num_layers: int
    video_tokens: int
    video_width: int
    value_tokens: int
    value_width: int

    @classmethod
    def of(cls, spec: PolicySpec) -> SlotShape:
        model = spec.model
        tokens = spec.num_views * spec.latent.num_tokens
        return cls(model.video.num_layers, tokens, model.video.width, spec.num_value_tokens, model.value.width)

    @property
    def elements(self) -> int:
        per_layer = self.video_tokens * self.video_width + self.value_tokens * self.value_width
        return self.num_layers * per_layer


class Arena:
    """The slab and its book. Slots are numpy index arrays `[n]`; features are `[n, tokens, C]` in the slab's dtype."""

    def __init__(self, shape: SlotShape, book: ArenaBook, dtype: torch.dtype, device: torch.device) -> None:
        self.shape = shape
        self.book = book
        self.device = device
        slots = book.num_slots
        video = (shape.num_layers, slots, shape.video_tokens, shape.video_width)
        value = (shape.num_layers, slots, shape.value_tokens, shape.value_width)
        # zero_() touches every page now instead of in a robot's first plan
        self._video = torch.empty(video, dtype=dtype, device=device).zero_()
        self._value = torch.empty(value, dtype=dtype, device=device).zero_()

    @property
    def bytes(self) -> int:
        return self._video.nbytes + self._value.nbytes

    def write_video(self, layer: int, slots: NDArray[np.int64], features: Tensor) -> None:
        _write(self._video[layer], slots, features)

    def read_video(self, layer: int, slots: NDArray[np.int64]) -> Tensor:
        return _read(self._video[layer], slots)

    def write_value(self, layer: int, slots: NDArray[np.int64], features: Tensor) -> None:
        _write(self._value[layer], slots, features)

    def read_value(self, layer: int, slots: NDArray[np.int64]) -> Tensor:
        return _read(self._value[layer], slots)


def _consecutive(slots: NDArray[np.int64]) -> bool:
    return bool((np.diff(slots) == 1).all())


def _write(plane: Tensor, slots: NDArray[np.int64], features: Tensor) -> None:
    if _consecutive(slots):
        plane[int(slots[0]) : int(slots[0]) + len(slots)].copy_(features)
    else:
        plane[torch.from_numpy(slots).to(plane.device)] = features.to(plane.dtype)


def _read(plane: Tensor, slots: NDArray[np.int64]) -> Tensor:
    """A view where the slots are neighbours, else a copy."""
    if _consecutive(slots):
        return plane[int(slots[0]) : int(slots[0]) + len(slots)]
    return plane[torch.from_numpy(slots).to(plane.device)]
