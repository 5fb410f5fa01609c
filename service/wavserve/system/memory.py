"""The names of the memory that a process with models holds, and its resident memory. Knows no models and no torch."""

from __future__ import annotations

import os
from pathlib import Path

MEMORY = {
    "model_resident_bytes": "Memory of a model's process that is in RAM, shared pages included. It is no GPU memory.",
    "model_weights_bytes": "Tensors that a model's process held when it had loaded, without the arena.",
    "model_arena_bytes": "Features of the arena that a model's process created.",
    "model_torch_allocated_bytes": "GPU memory of tensors in a model's process.",
    "model_torch_reserved_bytes": "GPU memory that torch holds in a model's process, free blocks included.",
    "model_torch_peak_bytes": "Most GPU memory of tensors in a model's process since its start.",
}
"""metric without its prefix -> meaning. The last three exist on a GPU only."""

_STATM = Path("/proc/self/statm")


def resident_bytes() -> float:
    """Memory of this process that is in RAM. NaN where the system does not tell."""
    try:
        return float(_STATM.read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return float("nan")
