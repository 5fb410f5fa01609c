"""Plain against fast: one plan each on the same weights and noise, in processes of their own, taking turns.

Run by `make bench`. Cases: (a) the tiny sizes, (b) LIBERO shapes on a model of 8 layers and width 256. Paths: `plain`
(the oracle), `fast` (as it is written), `compiled` (by torch; its compilation is timed apart), and with `--bfloat16`
the compiled one in bfloat16, with how often its elites are those of float32. Times are the median of `--repeats`; extra
memory is the peak resident size during the plan over that before it, sampled every 5 ms by a thread. Progress goes to
stderr; the figures, with the aims beside them, are one JSON object on the last line of stdout.
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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from loadtest.bench.exact_plan import CASES, SEED, FastPlan, example_inputs, moved, tiny
from wavserve.models import flops
from wavserve.models.flops import Workload
from wavserve.models.networks.plain import Draws, Plain, Scene, plain_plan
from wavserve.models.runners import precision
from wavserve.models.weights.weights import Models, random_models
from wavserve.system.processes import COMPUTING

PATHS = ("plain", "fast", "compiled", "bfloat16")
AIMS = {"compiled": 0.25, "bfloat16": 0.15}
"""Of plain's time, at the mid size."""
MAX_DIFFERENCE, MIN_AGREEMENT = 1e-4, 0.95
"""Aims: float32's largest difference of an action; the share of draws whose bfloat16 elites are those of float32."""
CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Measured:
    """One plan of one path: wall and processor seconds, peak growth of resident memory, and its actions.

    `gemm_flops_s`: what the machine did in matrix products of the feed-forward's size, right before.
    """

    wall_s: float
    cpu_s: float
    extra_bytes: float
    compile_s: float
    gemm_flops_s: float
    actions: list[list[float]]


def measure(case: Workload, path: str) -> Measured:
    """Make one plan in this process, after what loads the libraries' kernels."""
    _small_plan(path)
    models = random_models(case.config, SEED, torch.bfloat16 if path == "bfloat16" else torch.float32)
    scene, draws = example_inputs(case)
    compiling = time.perf_counter()
    fast = None if path == "plain" else FastPlan(models, case, compile_blocks=path in ("compiled", "bfloat16"))
    compiling = time.perf_counter() - compiling
    rate = _gemm_rate(case, models.video.view_embed.dtype)
    with peak_memory() as peak:
        wall, cpu = time.perf_counter(), time.process_time()
        actions = planned(case, models, scene, draws) if fast is None else fast.plan(scene, draws)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Measured(wall, cpu, peak[0], compiling, rate, actions.tolist())


def _small_plan(path: str) -> None:
    small = replace(tiny(), planner=replace(tiny().planner, num_iterations=1, num_video_samples=2, num_flow_steps=1))
    models, inputs = random_models(small.config, SEED), example_inputs(small)
    planned(small, models, *inputs, plain=path == "plain")


def _gemm_rate(case: Workload, dtype: torch.dtype) -> float:
    width = case.config.video.width
    return precision.gemm_rate(dtype, CPU, case.num_tokens, width, 4 * width)


def planned(work: Workload, models: Models, scene: Scene, draws: Draws, plain: bool = True) -> Tensor:
    """Actions of one plan through the plain or the fast path."""
    if not plain:
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
    command = [sys.executable, "-m", "loadtest.bench.exact", "--case", name, "--path", path]
    environ = {**COMPUTING, **os.environ}  # as the service has it
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environ)
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def compare(name: str, repeats: int, paths: Sequence[str]) -> dict[str, Any]:
    """Figures of a case: medians of `repeats` turns, the paths alternately."""
    turns: dict[str, list[Measured]] = {path: [] for path in paths}
    for turn in range(repeats):
        for path, found in turns.items():
            found.append(measure_apart(name, path))
            note(f"{name} {path} {turn + 1}/{repeats}: {found[-1].wall_s:.2f} s")
    figures: dict[str, Any] = {"repeats": repeats}
    for field in ("wall_s", "cpu_s", "extra_bytes", "gemm_flops_s"):
        figures[field] = {path: statistics.median(getattr(one, field) for one in turns[path]) for path in paths}
    figures["compile_s"] = {path: [one.compile_s for one in turns[path]] for path in paths if path in AIMS}
    figures["ratio"] = {path: figures["wall_s"][path] / figures["wall_s"]["plain"] for path in paths}
    plain = np.array(turns["plain"][0].actions)
    errors = {path: np.abs(np.array(turns[path][0].actions) - plain) for path in paths if path != "plain"}
    figures["action_difference"] = {
        path: {"max": float(error.max()), "mean": float(error.mean())} for path, error in errors.items()
    }
    figures["flops"] = count(CASES[name]())
    return figures | {"roofline": roofline(figures)}


def roofline(figures: dict[str, Any]) -> dict[str, float]:
    """A plan of nothing but matrix products at this run's rate: seconds, and their share of plain's time."""
    seconds = figures["flops"]["fast"]["plan"] / figures["gemm_flops_s"]["fast"]
    return {"wall_s": seconds, "ratio": seconds / figures["wall_s"]["plain"]}


def count(case: Workload) -> dict[str, Any]:
    """FLOPs of a plan by the formulas, and the formulas' error against torch's counter on a plan of fewer samples."""
    few = replace(case, planner=replace(case.planner, num_iterations=1, num_video_samples=2, num_value_samples=2))
    few = replace(few, planner=replace(few.planner, video_elite_fraction=1.0, value_elite_fraction=1.0))
    models = random_models(few.config, SEED)
    inputs = example_inputs(few)
    figures: dict[str, Any] = {}
    for path, formula in (("plain", flops.plain), ("fast", flops.fast)):
        counted = flops.counted(partial(planned, few, models, *inputs, plain=path == "plain"))
        figures[path] = {"plan": formula(case).plan, "formula_over_counted": formula(few).plan / counted}
    return figures | {"ratio": figures["fast"]["plan"] / figures["plain"]["plan"]}


def agreement(case: Workload, plans: int, device: torch.device = CPU) -> dict[str, Any]:
    """How often bfloat16 chooses the elites of float32, over the K draws of each of `plans` seeds, unadapted."""
    full, half = (
        FastPlan(random_models(case.config, SEED, dtype).to(device), case) for dtype in (torch.float32, torch.bfloat16)
    )
    same: dict[str, list[float]] = {"video": [], "value": []}
    shared: dict[str, list[float]] = {"video": [], "value": []}
    for seed in range(plans):
        scene, draws = (moved(each, device) for each in example_inputs(case, seed))
        texts = full.text_kv(scene), half.text_kv(scene)
        for futures, noises in zip(draws.video, draws.value, strict=True):
            pair = [one.scores(scene, text, futures, noises) for one, text in zip((full, half), texts, strict=True)]
            for kind, (ours, oracle) in _elites(case, pair).items():
                same[kind].append(float(ours == oracle))
                shared[kind].append(len(ours & oracle) / len(oracle))
        note(f"elites of plan {seed + 1}/{plans}: {same}")
    return {
        "draws": len(same["video"]),
        "same_sets": {kind: statistics.mean(found) for kind, found in same.items()},
        "shared_elites": {kind: statistics.mean(found) for kind, found in shared.items()},
    }


def _elites(case: Workload, scores: Sequence[Tensor]) -> dict[str, tuple[set[int], ...]]:
    planner = case.planner
    return {
        "video": tuple(set(each.amax(1).topk(planner.num_video_elites).indices.tolist()) for each in scores),
        "value": tuple(set(each.flatten().topk(planner.num_value_elites).indices.tolist()) for each in scores),
    }


def chosen(case: Workload) -> dict[str, str | float]:
    """What `backend.dtype = "auto"` makes of this machine."""
    dtype, gain = precision.choose(case.config, case.latent, case.num_views, CPU)
    return {"dtype": dtype, "float32_over_bfloat16": gain}


def note(text: str) -> None:
    """Progress, for who waits."""
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="only the tiny case")
    parser.add_argument("--bfloat16", action="store_true", help="also bfloat16: its time, error and elites")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--case", choices=CASES, help="measure one plan of this case here (with --path)")
    parser.add_argument("--path", choices=PATHS, default="fast")
    args = parser.parse_args()
    if args.case:
        print(json.dumps(asdict(measure(CASES[args.case](), args.path))))
        return
    names = ["tiny"] if args.quick else list(CASES)
    paths = PATHS if args.bfloat16 else PATHS[:-1]
    figures: dict[str, Any] = {name: compare(name, args.repeats, paths) for name in names}
    if args.bfloat16:
        figures |= {f"{name}_elites": agreement(CASES[name](), plans=8) for name in names}
    verdict = {name: chosen(CASES[name]()) for name in names}
    aims = {"ratio": AIMS, "max_action_difference": MAX_DIFFERENCE, "same_elite_sets": MIN_AGREEMENT}
    about = {"bench": "exact", "threads": torch.get_num_threads(), "torch": torch.__version__}
    print(json.dumps({**about, **figures, "backend.dtype auto": verdict, "aims": aims}))


if __name__ == "__main__":
    main()
