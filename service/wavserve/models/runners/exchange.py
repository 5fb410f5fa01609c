"""Tensors between numpy and Triton's stub, by DLPack and without a copy.

Do not use Triton's own `as_numpy()` and `Tensor(name, array)`: they are compiled against numpy 1, and with numpy 2 they
give wrong numbers without a warning.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def to_numpy(capsule: Any) -> NDArray[Any]:
    """A request's tensor as an array, which is valid only during the call. A tensor on a GPU is copied."""
    tensor: Tensor = torch.from_dlpack(capsule)  # type: ignore[attr-defined]
    array: NDArray[Any] = tensor.cpu().numpy()
    return array


def to_dlpack(array: NDArray[Any]) -> Tensor:
    """An output as a torch tensor, which the stub can read by DLPack. A numpy array would crash the stub."""
    return torch.from_numpy(np.ascontiguousarray(array) if array.flags.writeable else array.copy())
