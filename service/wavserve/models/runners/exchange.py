"""Tensors between numpy and Triton's stub, by DLPack and without a copy.

Called by the hosted model's entry. Never `as_numpy()` or `Tensor(name, array)`: compiled against numpy 1, they give
wrong numbers with numpy 2 and no warning.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def to_numpy(capsule: Any) -> NDArray[Any]:
    """A request's tensor, valid during the call only; from a GPU it is copied."""
    tensor: Tensor = torch.from_dlpack(capsule)  # type: ignore[attr-defined]
    array: NDArray[Any] = tensor.cpu().numpy()
    return array


def to_dlpack(array: NDArray[Any]) -> Tensor:
    """What the stub takes an output from: a torch tensor; a numpy array would crash it."""
    return torch.from_numpy(np.ascontiguousarray(array) if array.flags.writeable else array.copy())
