"""How fast this machine multiplies matrices in a type, and whether bfloat16 is worth its rounding for a policy here.

Called where `backend.dtype` is `auto`, by the one process that decides for all (models that share an arena must agree),
and by benchmarks.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import torch

from wavserve.models import weights
from wavserve.models.fast_video import FastVideo
from wavserve.spec import LatentSpec, ModelConfig

WORTH = 1.3
"""bfloat16 is taken from this gain on: below it, it costs accuracy for little."""
_ROWS, _WIDTH = 768, 1024
_ROUNDS, _ENOUGH_S = 20, 2.0


@torch.inference_mode()
def gemm_rate(
    dtype: torch.dtype, device: torch.device, rows: int = _ROWS, width: int = _WIDTH, out_width: int = 4 * _WIDTH
) -> float:
    """FLOP/s of a product `[rows, width] x [width, out_width]` of the fastest, for noise only slows."""
    left = torch.ones(rows, width, dtype=dtype, device=device)
    right = torch.nn.Linear(width, out_width, dtype=dtype, device=device)
    return 2.0 * rows * width * out_width / _fastest(lambda: right(left), device)


def choose(config: ModelConfig, latent: LatentSpec, num_views: int, device: torch.device) -> tuple[str, float]:
    """`float32` or `bfloat16`, and how many times faster the latter imagines samples of these sizes here.

    A matrix product alone would flatter it: a small model spends little of its time in those.
    """
    config = replace(config, video=replace(config.video, num_layers=1))
    seconds = []
    for dtype in (torch.float32, torch.bfloat16):
        model = FastVideo(weights.random_video(config, 0, dtype).to(device), config, latent, num_views)
        seconds.append(_fastest(model.rehearse, device))
    gain = seconds[0] / seconds[1]
    return ("bfloat16" if gain >= WORTH else "float32"), gain


def _fastest(run: Callable[[], object], device: torch.device) -> float:
    """The shortest of some rounds: noise only slows. A large model's are few."""
    times: list[float] = []
    while len(times) < _ROUNDS and sum(times) < _ENOUGH_S:
        started = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return min(times)
