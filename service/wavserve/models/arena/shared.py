"""The feature arena across processes: `video_dit` creates it; `value_dit` and `action_dit` find it by their handles.

Each model runs in its own process. On a CPU the features are in a slab under /dev/shm that every process maps. On CUDA
they are in an allocation of the creator, which readers open through CUDA IPC; the slab then holds only the book. The
slab's header is a small JSON object, not a pickle. A handle's generation contains the epoch of its slab. When a reader
receives a handle with another epoch, it attaches to that slab.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wavserve.core.errors import BackendError, SettingsError
from wavserve.models.arena import slabs
from wavserve.models.arena.arena import Arena, SlotShape
from wavserve.models.arena.book import EPOCH_BITS, ArenaBook, Cells
from wavserve.models.arena.slabs import Slab

_ALIGNED = 4096


@dataclass(frozen=True, slots=True)
class ArenaConfig:
    """The values that the creator and the readers must agree on."""

    prefix: str
    """prefix of the slab names; it distinguishes the servers of one machine"""
    shape: SlotShape
    num_slots: int
    lease_s: float
    dtype: torch.dtype
    device: torch.device

    @property
    def feature_bytes(self) -> int:
        return self.num_slots * self.shape.elements * self.dtype.itemsize

    @property
    def facts(self) -> dict[str, Any]:
        """The contents of the slab's header; a reader refuses a slab with other contents."""
        return {
            "shape": asdict(self.shape),
            "num_slots": self.num_slots,
            "dtype": str(self.dtype),
            "device": self.device.type,
        }


class SharedArena(Arena):
    """An arena in a slab. This process created the slab (`create`) or attached to it (`_attach`)."""

    def __init__(self, config: ArenaConfig, slab: Slab, features: Tensor) -> None:
        cells = Cells.over(slab.memory, config.num_slots, slabs.HEADER)
        book = ArenaBook(config.num_slots, config.lease_s, cells=cells, epoch=slab.epoch)
        super().__init__(config.shape, book, features)
        self.slab = slab

    @classmethod
    def create(cls, config: ArenaConfig) -> SharedArena:
        """Creates a slab and an arena in it. Raises SettingsError when there is no room for it."""
        book_bytes = _book_bytes(config)
        if config.device.type == "cuda":
            features = _allocate_on_cuda(config)
            slab = slabs.create(config.prefix, book_bytes, {**config.facts, "cuda": _export_cuda(features)})
        else:
            slab = slabs.create(config.prefix, book_bytes + config.feature_bytes, config.facts)
            features = _mapped(config, slab)
        return cls(config, slab, features)

    def close(self) -> None:
        self.slab.close()


class AttachedArenas:
    """A reader's `ArenaFinder`. It attaches to the slab that the handles name, and keeps the last slab that exists."""

    def __init__(self, config: ArenaConfig) -> None:
        self._config = config
        self._arena: SharedArena | None = None

    @property
    def device(self) -> torch.device:
        return self._config.device

    def of(self, handles: NDArray[np.int64]) -> Arena | None:
        for epoch in np.unique(handles[..., 1] >> EPOCH_BITS).tolist():
            if self._arena is None or epoch != self._arena.book.epoch:
                slab = slabs.attach(self._config.prefix, epoch)
                if slab is not None:
                    self._arena = _attach(self._config, slab)
        return self._arena


def _attach(config: ArenaConfig, slab: Slab) -> SharedArena:
    facts = {name: slab.facts.get(name) for name in config.facts}
    if facts != config.facts:
        raise BackendError(f"{slab.path}: expected an arena of {config.facts}, got {facts}")
    features = _import_cuda(config, slab.facts["cuda"]) if "cuda" in slab.facts else _mapped(config, slab)
    return SharedArena(config, slab, features)


def _book_bytes(config: ArenaConfig) -> int:
    return -(-Cells.nbytes(config.num_slots) // _ALIGNED) * _ALIGNED


def _mapped(config: ArenaConfig, slab: Slab) -> Tensor:
    offset = slabs.HEADER + _book_bytes(config)
    count = config.num_slots * config.shape.elements
    return torch.frombuffer(slab.memory, dtype=config.dtype, count=count, offset=offset)


def _allocate_on_cuda(config: ArenaConfig) -> Tensor:
    free, _ = torch.cuda.mem_get_info(config.device)
    if config.feature_bytes > free:
        raise SettingsError(
            f"arena.num_slots: expected a feature arena of at most {free / 1e6:.0f} MB, which is what is free on "
            f"{config.device}, got {config.feature_bytes / 1e6:.0f} MB; use fewer slots, or bfloat16"
        )
    return torch.zeros(config.num_slots * config.shape.elements, dtype=config.dtype, device=config.device)


def _export_cuda(features: Tensor) -> list[Any]:
    """The values with which another process opens the allocation: numbers, and CUDA's handles in hex.

    They come from the IPC calls of torch's own multiprocessing, so that torch's allocator and reference counts stay
    correct.
    """
    parts = features.untyped_storage()._share_cuda_()  # type: ignore[no-untyped-call]
    return [part.hex() if isinstance(part, bytes) else part for part in parts]


def _import_cuda(config: ArenaConfig, parts: list[Any]) -> Tensor:
    # device, memory handle, size, offset, reference counter's handle and offset, event handle, whether to wait for it
    decoded = [bytes.fromhex(part) if isinstance(part, str) else part for part in parts]
    torch.cuda._lazy_init()  # type: ignore[no-untyped-call]
    storage = torch.UntypedStorage._new_shared_cuda(*decoded)
    return torch.empty(0, dtype=config.dtype, device=config.device).set_(storage)
