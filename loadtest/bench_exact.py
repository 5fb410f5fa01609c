"""Plain against fast: one plan each on the same weights and noise, in processes of their own, taking turns.

Run by `make bench`. Cases: (a) the tiny sizes, (b) LIBERO shapes on a model of 8 layers and width 256. Times are the
median of `--repeats`; extra memory is the peak resident size during the plan over that before it, sampled every 5 ms by
a thread. Progress goes to stderr; the figures are one JSON object on the last line of stdout.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from wavserve.models import flops
from wavserve.models.fast_expert import FastAction, FastValue
from wavserve.models.fast_video import FastVideo, TextKV
from wavserve.models.flops import Workload
from wavserve.models.plain import Draws, Plain, Scene, plain_plan, refit, refit_video, snr, start
from wavserve.models.weights import Models, random_models
from wavserve.spec import ExpertConfig, LatentSpec, ModelConfig, PlannerConfig, VideoConfig

SEED = 0
Pair = tuple[Tensor, Tensor]
SLICE = 8
"""Video samples the fast path imagines, scores and drops at once."""


def tiny() -> Workload:
    """Case (a): the tiny preset's sizes."""
    video = VideoConfig(16, 16, num_layers=4, num_heads=6, head_dim=16, caption_channels=64)
    config = ModelConfig(video, _expert(10, 3, 16, 57), _expert(15, 3, 16, 54))
    planner = PlannerConfig(
        num_iterations=3, num_video_samples=8, num_value_samples=3, video_elite_fraction=0.5, value_elite_fraction=0.25
    )
    return Workload(config, LatentSpec(4, 2, 4, 4), planner, num_views=2, chunk=16, num_prompt=40, num_padded=64)


def libero_shapes() -> Workload:
    """Case (b): two views of 8x8 latents, 4 + 2 frames, N=30, M=5, K=5."""
    video = VideoConfig(128, 128, num_layers=8, num_heads=4, head_dim=64, caption_channels=512)
    config = ModelConfig(video, _expert(10, 2, 32, 57), _expert(15, 2, 32, 54))
    return Workload(
        config, LatentSpec(4, 2, 8, 8), PlannerConfig(), num_views=2, chunk=36, num_prompt=20, num_padded=128
    )


def _expert(channels: int, num_heads: int, head_dim: int, rope_base: int) -> ExpertConfig:
    return ExpertConfig(channels, channels, num_heads, head_dim, rope_base)


CASES = {"tiny": tiny, "libero_shapes": libero_shapes}


def example_inputs(case: Workload) -> tuple[Scene, Draws]:
    """A seeded scene and every noise of a plan."""
    generator = torch.Generator().manual_seed(SEED + 1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    latent, planner, config = case.latent, case.planner, case.config
    frames = (case.num_views, config.video.in_channels, latent.num_future_frames, latent.height, latent.width)
    value = (case.chunk, config.value.in_channels)
    action = config.action.in_channels
    num_rows = planner.num_video_samples * planner.num_value_samples
    memory = normal(*frames[:2], latent.num_memory_frames, *frames[3:])
    text = torch.zeros(case.num_padded, config.video.caption_channels)
    text[: case.num_prompt] = normal(case.num_prompt, config.video.caption_channels)
    mask = (torch.arange(case.num_padded) < case.num_prompt).float()
    scene = Scene(memory, text, mask, normal(action))
    k = planner.num_iterations
    video_draws = normal(k, planner.num_video_samples, *frames)
    return scene, Draws(
        video_draws, normal(k, num_rows, *value), normal(*frames), normal(*value), normal(case.chunk, action)
    )


class FastPlan:
    """The same plan through the fast paths: slice by slice imagine, score, drop, as the service does."""

    def __init__(self, models: Models, case: Workload) -> None:
        self._case = case
        self._video = FastVideo(models.video, case.config, case.latent, case.num_views)
        self._value = FastValue(models.value, case.config, case.chunk)
        self._action = FastAction(models.action, case.config, case.chunk)
        tokens = case.num_views * case.latent.num_tokens
        self._slab = torch.empty(case.config.video.num_layers, SLICE, tokens, case.config.video.width)

    @torch.inference_mode()
    def plan(self, scene: Scene, draws: Draws) -> Tensor:
        """Actions `[T, action channels]`."""
        config = self._case.planner
        text = self._video.text_kv(scene.text[scene.text_mask.bool()])
        video, value = start(draws.final_video[:1]), start(draws.final_value)
        for k in range(config.num_iterations):
            futures, noises = draws.video[k] * video[1] + video[0], draws.value[k] * value[1] + value[0]
            grouped = rearrange(noises, "(n m) t c -> n m t c", m=config.num_value_samples)
            found = []
            for first in range(0, len(futures), SLICE):
                rows = slice(first, first + SLICE)
                kv = self._value.cross_kv(self._imagine(scene, futures[rows], text))
                found.append(snr(self._value.integrate(grouped[rows], kv, config.num_flow_steps)[..., -1]))
            by_sample = torch.cat(found)
            video = refit_video(video, futures[by_sample.amax(1).topk(config.num_video_elites).indices], config)
            value = refit(value, noises[by_sample.flatten().topk(config.num_value_elites).indices], config)
        return self._decode(scene, draws, text, video, value)

    def _imagine(self, scene: Scene, futures: Tensor, text: TextKV) -> Callable[[int], Tensor]:
        rows = len(futures)
        self._video.run(scene.memory[None], futures[None], 1.0, [text], self._keep)
        return lambda layer: self._slab[layer, :rows]

    def _keep(self, layer: int, x: Tensor) -> None:
        self._slab[layer, : len(x)] = x

    def _decode(self, scene: Scene, draws: Draws, text: TextKV, video: Pair, value: Pair) -> Tensor:
        read = self._imagine(scene, (draws.final_video * video[1] + video[0])[None], text)
        noise = (draws.final_value * value[1] + value[0])[None]
        features = self._value.features(noise, self._value.cross_kv(read))
        kv = self._action.cross_kv(read), self._action.value_kv(features.__getitem__)
        steps = self._case.planner.num_flow_steps
        return self._action.integrate(draws.action[None], scene.history[None], *kv, steps)[0]


@dataclass(frozen=True, slots=True)
class Measured:
    """One plan of one path: wall and processor seconds, peak growth of resident memory, and its actions."""

    wall_s: float
    cpu_s: float
    extra_bytes: float
    actions: list[list[float]]


def measure(case: Workload, path: str) -> Measured:
    """Make one plan in this process, after a plan of next to no size that loads the libraries' kernels."""
    warm_up = replace(tiny(), planner=replace(tiny().planner, num_iterations=1, num_video_samples=2, num_flow_steps=1))
    for work in (warm_up, case):
        models = random_models(work.config, SEED)
        scene, draws = example_inputs(work)
        with peak_memory() as peak:
            wall, cpu = time.perf_counter(), time.process_time()
            actions = planned(work, models, path, scene, draws)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Measured(wall, cpu, peak[0], actions.tolist())


def planned(work: Workload, models: Models, path: str, scene: Scene, draws: Draws) -> Tensor:
    """Actions of one plan through a path."""
    if path == "fast":
        return FastPlan(models, work).plan(scene, draws)
    return plain_plan(Plain(models, work.config, work.latent), scene, draws, work.planner)[0]


@contextmanager
def peak_memory() -> Iterator[list[float]]:
    """Yields a list whose one entry becomes the growth of resident memory, in bytes, at its peak within the block."""
    before, peak, stop = _resident(), [0.0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.005):
            peak[0] = max(peak[0], _resident() - before)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()


def _resident() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * float(os.sysconf("SC_PAGE_SIZE"))


def measure_apart(name: str, path: str) -> Measured:
    """`measure` in a process of its own, so that neither path inherits the other's memory."""
    command = [sys.executable, __file__, "--case", name, "--path", path]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def compare(name: str, repeats: int) -> dict[str, Any]:
    """Figures of a case: medians of `repeats` turns, plain and fast alternately."""
    turns: dict[str, list[Measured]] = {"plain": [], "fast": []}
    for turn in range(repeats):
        for path, found in turns.items():
            found.append(measure_apart(name, path))
            note(f"{name} {path} {turn + 1}/{repeats}: {found[-1].wall_s:.2f} s")
    figures: dict[str, Any] = {"repeats": repeats}
    for field in ("wall_s", "cpu_s", "extra_bytes"):
        plain, fast = (statistics.median(getattr(one, field) for one in turns[path]) for path in ("plain", "fast"))
        ratio = fast / plain if plain else None
        figures[field] = {"plain": plain, "fast": fast, "ratio": ratio}
    plain, fast = (np.array(turns[path][0].actions) for path in ("plain", "fast"))
    return figures | {"max_abs_difference": float(np.abs(plain - fast).max()), "flops": count(CASES[name]())}


def count(case: Workload) -> dict[str, Any]:
    """FLOPs of a plan by the formulas, and the formulas' error against torch's counter on a plan of fewer samples."""
    few = replace(case, planner=replace(case.planner, num_iterations=1, num_video_samples=2, num_value_samples=2))
    few = replace(few, planner=replace(few.planner, video_elite_fraction=1.0, value_elite_fraction=1.0))
    models = random_models(few.config, SEED)
    inputs = example_inputs(few)
    figures: dict[str, Any] = {}
    for path, formula in (("plain", flops.plain), ("fast", flops.fast)):
        counted = flops.counted(partial(planned, few, models, path, *inputs))
        figures[path] = {"plan": formula(case).plan, "formula_over_counted": formula(few).plan / counted}
    return figures | {"ratio": figures["fast"]["plan"] / figures["plain"]["plan"]}


def note(text: str) -> None:
    """Progress, for who waits."""
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="only the tiny case")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--case", choices=CASES, help="measure one plan of this case here (with --path)")
    parser.add_argument("--path", choices=("plain", "fast"), default="fast")
    args = parser.parse_args()
    if args.case:
        print(json.dumps(asdict(measure(CASES[args.case](), args.path))))
        return
    names = ["tiny"] if args.quick else list(CASES)
    figures = {name: compare(name, args.repeats) for name in names}
    print(json.dumps({"bench": "exact", "threads": torch.get_num_threads(), "torch": torch.__version__, **figures}))


if __name__ == "__main__":
    main()
