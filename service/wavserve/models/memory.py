"""The memory that this process holds for its models: weights, the arena, torch's GPU memory, and what is in RAM."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping

import torch

from wavserve.models.arena.arena import Arena
from wavserve.system.memory import resident_bytes


def readings(device: torch.device, arena: Arena | None) -> Mapping[str, Callable[[], float]]:
    """Readings by name, as `system.memory.MEMORY` names them. Call it once, when the models are loaded.

    `arena`: the one that this process created; None: it created none.
    """
    arena_bytes = 0 if arena is None else arena.num_bytes
    weights_bytes = tensor_bytes() - arena_bytes
    known: dict[str, Callable[[], float]] = {
        "model_resident_bytes": resident_bytes,
        "model_weights_bytes": lambda: weights_bytes,
    }
    if arena is not None:
        known["model_arena_bytes"] = lambda: arena_bytes
    if device.type == "cuda":
        known |= {
            "model_torch_allocated_bytes": lambda: torch.cuda.memory_allocated(device),
            "model_torch_reserved_bytes": lambda: torch.cuda.memory_reserved(device),
            "model_torch_peak_bytes": lambda: torch.cuda.max_memory_allocated(device),
        }
    return known


def tensor_bytes() -> int:
    """Bytes of all tensors of this process, on any device. Tensors that share memory count once.

    A compiler leaves tensors without memory: their storage is on the device `meta`.
    """
    gc.collect()
    # the type, because isinstance asks lazy modules for their class, which loads them
    tensors = (each for each in gc.get_objects() if issubclass(type(each), torch.Tensor))
    return sum(dict(held for each in tensors if (held := _memory(each)) is not None).values())


def _memory(tensor: torch.Tensor) -> tuple[int, int] | None:
    """The address of a tensor's memory, and its bytes; None: it has none that can be named."""
    try:
        storage = tensor.untyped_storage()
        return None if storage.device.type == "meta" else (storage.data_ptr(), storage.nbytes())
    except (RuntimeError, NotImplementedError):  # a sparse tensor, or one in a library's own layout
        return None
