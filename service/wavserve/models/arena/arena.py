"""The feature arena: a slab of fixed-size slots that hold video features for the value and action models.

The video runner writes features, and the other two read them; `arena.book` has the rules. The slab may be this
process's own or shared with others (`arena.shared`). Users need not know which. Its layout is layer by layer, so that
one layer of neighbouring slots is one contiguous block for a matrix product.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wavserve.core.spec import PolicySpec
from wavserve.models.arena.book import ArenaBook


@dataclass(frozen=True, slots=True)
class SlotShape:
    """Sizes of the features in one slot: video features `[layers, V*L, C]` and value features `[layers, T, C]`."""

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


class ArenaFinder(Protocol):
    """Finds the arena of a handle. Models in one process share one arena; for several processes see `arena.shared`."""

    @property
    def device(self) -> torch.device: ...

    def of(self, handles: NDArray[np.int64]) -> Arena | None:
        """The arena that handles `[..., 2]` point into; None when it no longer exists."""
        ...


class Arena:
    """The slab and its book. Slots are numpy index arrays `[n]`; features are `[n, tokens, C]` in the slab's dtype."""

    def __init__(self, shape: SlotShape, book: ArenaBook, slab: Tensor) -> None:
        """`slab`: `[slots * shape.elements]`, in any memory."""
        self.shape = shape
        self.book = book
        self.device = slab.device
        slots = book.num_slots
        video = (shape.num_layers, slots, shape.video_tokens, shape.video_width)
        value = (shape.num_layers, slots, shape.value_tokens, shape.value_width)
        self._video = slab[: math.prod(video)].view(video)
        self._value = slab[math.prod(video) :].view(value)

    @property
    def num_bytes(self) -> int:
        """Of the features."""
        return self._video.nbytes + self._value.nbytes

    @classmethod
    def in_process(cls, shape: SlotShape, book: ArenaBook, dtype: torch.dtype, device: torch.device) -> Arena:
        """An arena in this process's own memory."""
        # zero_() touches every page now, and not during a robot's first plan
        return cls(shape, book, torch.empty(book.num_slots * shape.elements, dtype=dtype, device=device).zero_())

    def of(self, handles: NDArray[np.int64]) -> Arena:
        return self

    def synchronize(self) -> None:
        """Waits until reads and writes are complete: other processes do not see this process's CUDA stream."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

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
    """A view when the slots are neighbours, else a copy."""
    if _consecutive(slots):
        return plane[int(slots[0]) : int(slots[0]) + len(slots)]
    return plane[torch.from_numpy(slots).to(plane.device)]
