"""How fast this machine multiplies matrices in a type, and whether bfloat16 is worth its rounding here.

Called where `backend.dtype` is `auto`, by the one process that decides for all (models that share an arena must agree),
and by benchmarks.
"""

from __future__ import annotations

import time

import torch

WORTH = 1.3
"""bfloat16 is taken from this gain on: below it, it costs accuracy for little."""
_ROWS, _WIDTH = 768, 1024
_ROUNDS = 20


@torch.inference_mode()
def gemm_rate(
    dtype: torch.dtype, device: torch.device, rows: int = _ROWS, width: int = _WIDTH, out_width: int = 4 * _WIDTH
) -> float:
    """FLOP/s of a product `[rows, width] x [width, out_width]` of the fastest, for noise only slows."""
    left = torch.ones(rows, width, dtype=dtype, device=device)
    right = torch.nn.Linear(width, out_width, dtype=dtype, device=device)
    times = []
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        right(left)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return 2.0 * rows * width * out_width / min(times)


def choose(device: torch.device) -> tuple[str, float]:
    """`float32` or `bfloat16`, and how many times faster the latter is on this device."""
    gain = gemm_rate(torch.bfloat16, device) / gemm_rate(torch.float32, device)
    return ("bfloat16" if gain >= WORTH else "float32"), gain
