"""Compares the plain path with the fast one: plans on the same weights and noise, each in its own process.

Cases: the sizes of `tiny`, and LIBERO shapes on a model of 8 layers and width 256. Paths, in turn:

- `plain`: the oracle
- `fast`: the fast path as written
- `compiled`: the fast path, compiled by torch; its compilation is timed separately
- `bfloat16` (only with `--bfloat16`): the compiled path in bfloat16, also with its share of float32's elites

Times are medians of `--repeats`. Extra memory is the peak resident size during the plan minus the size before it,
sampled every 5 ms. Progress goes to stderr. The last line of stdout is one JSON object with the figures and aims.
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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from loadtest.aims import Aim, at_least, at_most
from loadtest.bench.exact_plan import CASES, SEED, FastPlan, example_inputs, moved, tiny
from wavserve.models import flops
from wavserve.models.flops import Workload
from wavserve.models.networks.plain import Draws, Plain, Scene, plain_plan
from wavserve.models.runners import precision
from wavserve.models.weights.weights import Models, random_models
from wavserve.system.processes import COMPUTE_ENVIRONMENT

PATHS = ("plain", "fast", "compiled", "bfloat16")
COMPILED = ("compiled", "bfloat16")
MID_SIZE = "libero_shapes"
MAX_RATIO = {"compiled": 0.25, "bfloat16": 0.15}
"""Aims for a path's time over plain's, at the mid size."""
MAX_DIFFERENCE = 1e-4
"""The aim for the largest difference of an action from the plain path, in float32."""
MIN_AGREEMENT = 0.95
"""The aim for the share of draws in which bfloat16 chooses the elites of float32."""
CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Measured:
    """One plan of one path."""

    wall_s: float
    cpu_s: float
    """processor time"""
    extra_bytes: float
    """peak growth of resident memory"""
    compile_s: float
    gemm_flops_s: float
    """rate of matrix products of the feed-forward's size, measured right before the plan"""
    actions: list[list[float]]


def measure(case: Workload, path: str) -> Measured:
    """Measures one plan in this process, after a small plan that loads the libraries' kernels."""
    _small_plan(path)
    models = random_models(case.config, SEED, torch.bfloat16 if path == "bfloat16" else torch.float32)
    scene, draws = example_inputs(case)
    compiling = time.perf_counter()
    fast = None if path == "plain" else FastPlan(models, case, compile_blocks=path in COMPILED)
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
    """Yields a list of one entry: the peak growth of resident memory within the block, in bytes."""
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


def measure_in_process(name: str, path: str) -> Measured:
    """`measure` in a new process, so that no path inherits another's memory."""
    command = [sys.executable, "-m", "loadtest.bench.exact", "--case", name, "--path", path]
    environment = {**COMPUTE_ENVIRONMENT, **os.environ}  # as in the service
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def compare(name: str, repeats: int, paths: Sequence[str]) -> dict[str, Any]:
    """The figures of a case: medians of `repeats` turns, in which the paths alternate."""
    turns: dict[str, list[Measured]] = {path: [] for path in paths}
    for turn in range(repeats):
        for path, plans in turns.items():
            plans.append(measure_in_process(name, path))
            note(f"{name} {path} {turn + 1}/{repeats}: {plans[-1].wall_s:.2f} s")
    figures: dict[str, Any] = {"repeats": repeats}
    for field in ("wall_s", "cpu_s", "extra_bytes", "gemm_flops_s"):
        figures[field] = {path: statistics.median(getattr(one, field) for one in turns[path]) for path in paths}
    figures["compile_s"] = {path: [one.compile_s for one in turns[path]] for path in paths if path in COMPILED}
    figures["ratio"] = {path: figures["wall_s"][path] / figures["wall_s"]["plain"] for path in paths}
    plain = np.array(turns["plain"][0].actions)
    errors = {path: np.abs(np.array(turns[path][0].actions) - plain) for path in paths if path != "plain"}
    figures["action_difference"] = {
        path: {"max": float(error.max()), "mean": float(error.mean())} for path, error in errors.items()
    }
    figures["flops"] = count(CASES[name]())
    return figures | {"roofline": roofline(figures)}


def roofline(figures: dict[str, Any]) -> dict[str, float]:
    """Seconds of a plan's FLOPs as matrix products at this run's rate, and their ratio to plain's time."""
    seconds = figures["flops"]["fast"]["plan"] / figures["gemm_flops_s"]["fast"]
    return {"wall_s": seconds, "ratio": seconds / figures["wall_s"]["plain"]}


def count(case: Workload) -> dict[str, Any]:
    """FLOPs of a plan by formula, and the ratio of formula to measured FLOPs on a plan of fewer samples."""
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
    """How often bfloat16 chooses the elites of float32. Each of `plans` seeds gives K draws, without refits."""
    full, half = (
        FastPlan(random_models(case.config, SEED, dtype).to(device), case) for dtype in (torch.float32, torch.bfloat16)
    )
    same: dict[str, list[float]] = {"video": [], "value": []}
    shared: dict[str, list[float]] = {"video": [], "value": []}
    for seed in range(plans):
        scene, draws = moved(example_inputs(case, seed), device)
        texts = full.text_kv(scene), half.text_kv(scene)
        for futures, noises in zip(draws.video, draws.value, strict=True):
            pair = [one.scores(scene, text, futures, noises) for one, text in zip((full, half), texts, strict=True)]
            for level, (float32, bfloat16) in _elites(case, pair).items():
                same[level].append(float(float32 == bfloat16))
                shared[level].append(len(float32 & bfloat16) / len(bfloat16))
        note(f"elites of plan {seed + 1}/{plans}: {same}")
    return {
        "draws": len(same["video"]),
        "same_sets": {level: statistics.mean(each) for level, each in same.items()},
        "shared_elites": {level: statistics.mean(each) for level, each in shared.items()},
    }


def _elites(case: Workload, scores: Sequence[Tensor]) -> dict[str, tuple[set[int], ...]]:
    planner = case.planner
    return {
        "video": tuple(set(each.amax(1).topk(planner.num_video_elites).indices.tolist()) for each in scores),
        "value": tuple(set(each.flatten().topk(planner.num_value_elites).indices.tolist()) for each in scores),
    }


def chosen_dtype(case: Workload) -> dict[str, str | float]:
    """The type that `backend.dtype = "auto"` chooses on this machine, and the measured speed-up."""
    dtype, gain = precision.choose(case.config, case.latent, case.num_views, CPU)
    return {"dtype": dtype, "float32_over_bfloat16": gain}


def report(
    cases: Mapping[str, Mapping[str, Any]], elites: Mapping[str, Mapping[str, Any]], dtypes: Mapping[str, Any]
) -> dict[str, Any]:
    """The JSON object of the last line, from the figures, the elites and the chosen type of each case."""
    return {
        "bench": "exact",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        **cases,
        **{f"{name}_elites": found for name, found in elites.items()},
        "backend.dtype auto": dtypes,
        "aims": aims_of(cases, elites),
    }


def aims_of(cases: Mapping[str, Mapping[str, Any]], elites: Mapping[str, Mapping[str, Any]]) -> list[Aim]:
    """Every aim. An aim has no result if this run did not measure its case or bfloat16."""
    ratios = cases[MID_SIZE]["ratio"] if MID_SIZE in cases else {}
    aims = [
        at_most(f"{MID_SIZE}: time of {path} over plain's", limit, ratios.get(path))
        for path, limit in MAX_RATIO.items()
    ]
    for name, figures in cases.items():
        for path, difference in figures["action_difference"].items():
            if path != "bfloat16":
                aims.append(
                    at_most(
                        f"{name}: largest action difference of {path} from plain", MAX_DIFFERENCE, difference["max"]
                    )
                )
        same = elites[name]["same_sets"] if name in elites else {}
        aims += [
            at_least(
                f"{name}: share of draws in which bfloat16 has float32's {level} elites", MIN_AGREEMENT, same.get(level)
            )
            for level in ("video", "value")
        ]
    return aims


def note(text: str) -> None:
    """A line of progress."""
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="only the tiny case")
    parser.add_argument("--bfloat16", action="store_true", help="also measure bfloat16: its time, error and elites")
    parser.add_argument("--repeats", type=int, default=3, help="turns of each path (default %(default)s)")
    parser.add_argument(
        "--case", choices=CASES, help="measure only one plan of this case, in this process (with --path)"
    )
    parser.add_argument("--path", choices=PATHS, default="fast", help="path of that plan (default %(default)s)")
    args = parser.parse_args()
    if args.case:
        print(json.dumps(asdict(measure(CASES[args.case](), args.path))))
        return
    names = ["tiny"] if args.quick else list(CASES)
    paths = PATHS if args.bfloat16 else PATHS[:-1]
    cases = {name: compare(name, args.repeats, paths) for name in names}
    elites = {name: agreement(CASES[name](), plans=8) for name in names} if args.bfloat16 else {}
    dtypes = {name: chosen_dtype(CASES[name]()) for name in names}
    print(json.dumps(report(cases, elites, dtypes)))


if __name__ == "__main__":
    main()
