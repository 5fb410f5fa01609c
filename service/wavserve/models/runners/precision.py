"""Measures the speed of a type on this machine, and chooses float32 or bfloat16 for a policy.

Models that share an arena must have the same type, so one process must measure and choose for all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from wavserve.core.spec import LatentSpec, ModelConfig
from wavserve.models.fast.video import FastVideo
from wavserve.models.weights import weights

MIN_SPEEDUP = 1.5
"""bfloat16 is chosen if it is at least this many times as fast. A smaller gain is not worth the rounding, and
measurement noise could change the choice."""
_ROUNDS, _MAX_MEASURE_S = 20, 2.0


@torch.inference_mode()
def gemm_rate(dtype: torch.dtype, device: torch.device, rows: int, width: int, out_width: int) -> float:
    """FLOP/s of the fastest of several products `[rows, width] x [width, out_width]`.

    The fastest counts, because noise can only increase the time.
    """
    left = torch.ones(rows, width, dtype=dtype, device=device)
    right = torch.nn.Linear(width, out_width, dtype=dtype, device=device)
    return 2.0 * rows * width * out_width / _fastest([lambda: right(left)], device)[0]


def choose(config: ModelConfig, latent: LatentSpec, num_views: int, device: torch.device) -> tuple[str, float]:
    """`float32` or `bfloat16`, and how many times faster bfloat16 imagines samples of these sizes here.

    It measures one uncompiled block, with torch's current threads. A matrix product alone overstates the gain of
    bfloat16, because a small model spends little of its time in matrix products.
    """
    config = replace(config, video=replace(config.video, num_layers=1))
    models = [
        FastVideo(weights.random_video(config, 0, dtype).to(device), config, latent, num_views)
        for dtype in (torch.float32, torch.bfloat16)
    ]
    float32_s, bfloat16_s = _fastest([model.trace_shapes for model in models], device)
    return better(float32_s, bfloat16_s)


def better(float32_s: float, bfloat16_s: float) -> tuple[str, float]:
    """The type to choose from the time that each takes, and how many times faster bfloat16 is."""
    gain = float32_s / bfloat16_s
    return ("bfloat16" if gain >= MIN_SPEEDUP else "float32"), gain


def _fastest(runs: Sequence[Callable[[], object]], device: torch.device) -> list[float]:
    """Seconds of each run: the shortest of several rounds, because noise can only increase the time.

    The runs alternate. The first round loads kernels and does not count. A large model gets few rounds.
    """
    times: list[list[float]] = [[] for _ in runs]
    while len(times[0]) < 2 or (len(times[0]) < _ROUNDS and sum(map(sum, times)) < _MAX_MEASURE_S):
        for run, own_times in zip(runs, times, strict=True):
            started = time.perf_counter()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            own_times.append(time.perf_counter() - started)
    return [min(own_times[1:]) for own_times in times]
