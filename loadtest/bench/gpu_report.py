"""What only a GPU can show, checked and timed in one call: `make gpu-report` writes docs/benchmarks/gpu-NAME.json.

Parts: parity with the released model's numbers through the planner; fast, compiled and graphed blocks against the plain
path; bfloat16 against float32; the feature arena between processes (CUDA IPC), also after its owner was killed; a whole
service against one on a CPU, and one on a real Triton where that can run; and a LIBERO plan of the 2.3 B model against
the time its FLOPs take as matrix products. A part that fails does not keep the others from running, and what is known
is written after each. `--device cpu --quick` runs the same on small sizes, to try the script itself.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import re
import shlex
import statistics
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from loadtest.bench.exact import MAX_DIFFERENCE, MIN_AGREEMENT, agreement, planned
from loadtest.bench.exact_plan import SEED, FastPlan, example_inputs, libero_shapes, moved, tiny
from loadtest.bench.gpu_hosts import Hosts
from wavserve.app import parity
from wavserve.app.fleet import Size, device_config
from wavserve.app.settings import Settings
from wavserve.backends.base import Backend
from wavserve.backends.local import LocalBackend
from wavserve.bundle.bundle import Bundle
from wavserve.core.spec import PolicySpec
from wavserve.core.types import Array, TextEmbedding
from wavserve.models import flops
from wavserve.models.arena.arena import Arena, SlotShape
from wavserve.models.arena.book import ArenaBook
from wavserve.models.fast.graphs import cuda_recorder
from wavserve.models.flops import Workload
from wavserve.models.runners import precision
from wavserve.models.runners.loading import RunnerConfig, load_runners, transformer_runners
from wavserve.models.weights import presets
from wavserve.models.weights.weights import Models, random_models
from wavserve.planning.device import Device, DeviceConfig
from wavserve.planning.model_calls import PlanJob
from wavserve.planning.proposal import NamedNoise
from wavserve.scheduling.batcher import BatcherConfig

ROOT = Path(__file__).parents[2]
PACKAGES = ("wavserve", "torch", "triton", "numpy", "diffusers", "transformers", "nvidia-pytriton")
SLOTS, SLICE = 32, 8
PROMPT = 20
"""Tokens of the instruction."""
BFLOAT16_PLANS = 4
ROBOTS = 4
STARTED = time.perf_counter()
BEST = "compiled, graphs"
KERNELS = 14


@dataclass(frozen=True, slots=True)
class Ground:
    """What the parts stand on."""

    device: torch.device
    quick: bool
    repeats: int
    folder: Path
    """for bundles and logs, gone afterwards"""

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    def settle(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize()

    def median_s(self, run: Callable[[], object]) -> float:
        """Seconds of the median run, after one that does not count."""
        run()
        times = []
        for _ in range(self.repeats):
            self.settle()
            started = time.perf_counter()
            run()
            self.settle()
            times.append(time.perf_counter() - started)
        return statistics.median(times)


def check_parity(ground: Ground) -> dict[str, Any]:
    """The released model's plans through planner, batcher, arena and runners on this device, in float32."""
    checks = parity.check_planner(ROOT / "tests/parity", ground.device.type)
    failed = [f"{each.fixture} {each.tensor}: {each.error:.2e}" for each in checks if not each.ok]
    worst = max(each.error for each in checks)
    return {"ok": bool(checks) and not failed, "checks": len(checks), "failed": failed, "max_error": worst}


def check_exact(ground: Ground) -> dict[str, Any]:
    """Every variant of the fast path against the plain one, in float32: differences, and seconds of a plan."""
    case = tiny() if ground.quick else libero_shapes()
    models = random_models(case.config, SEED).to(ground.device)
    scene, draws = (moved(each, ground.device) for each in example_inputs(case))
    plain = planned(case, models, scene, draws)
    seconds = {"plain": ground.median_s(lambda: planned(case, models, scene, draws))}
    differences = {}
    for name, plan in variants(ground, models, case).items():
        differences[name] = (plan.plan(scene, draws) - plain).abs().max().item()
        seconds[name] = ground.median_s(lambda plan=plan: plan.plan(scene, draws))
    ok = all(difference <= MAX_DIFFERENCE for difference in differences.values())
    return {"ok": ok, "action_difference": differences, "aim": MAX_DIFFERENCE, "plan_s": seconds}


def variants(
    ground: Ground, models: Models, case: Workload, slice_size: int = SLICE, brief: bool = False
) -> dict[str, FastPlan]:
    """Fast paths to compare; `brief`: the first and the last. On a CPU the one as it is written, for `exact` has
    the others."""
    record = cuda_recorder() if ground.on_gpu else None
    wanted = {"fast": (False, None), "compiled": (True, None), "graphs": (False, record), BEST: (True, record)}
    names = ["fast"] if not ground.on_gpu else ["fast", BEST] if brief else wanted
    return {name: FastPlan(models, case, *wanted[name], slice_size) for name in names}


def check_bfloat16(ground: Ground) -> dict[str, Any]:
    """How often bfloat16 chooses the elites of float32, and how far its actions are."""
    case = tiny() if ground.quick else libero_shapes()
    found = agreement(case, 1 if ground.quick else BFLOAT16_PLANS, ground.device)
    scene, draws = (moved(each, ground.device) for each in example_inputs(case))
    full, half = (
        FastPlan(random_models(case.config, SEED, dtype).to(ground.device), case).plan(scene, draws).float()
        for dtype in (torch.float32, torch.bfloat16)
    )
    error = (full - half).abs()
    difference = {"max": error.max().item(), "mean": error.mean().item()}
    ok = min(found["same_sets"].values()) >= MIN_AGREEMENT
    return {"ok": ok, **found, "aim": MIN_AGREEMENT, "action_difference": difference}


def check_arena(ground: Ground) -> dict[str, Any]:
    """Models in processes of their own against the same in this one: equal plans, before and after a death."""
    made = presets.create("tiny", ground.folder / "tiny")
    config = RunnerConfig(ground.device.type, "float32", None, SLOTS, lease_s=60.0, max_texts=4)
    alone = asyncio.run(planned_on(LocalBackend(load_runners(made, config).runners), made))
    hosts = Hosts(made.folder, config)

    async def one_call_per_model() -> tuple[Array, str, Array]:
        await asyncio.to_thread(hosts.load)
        before = await planned_on(hosts, made, close=False)
        hosts.kill("video_dit")
        try:
            await planned_on(hosts, made, close=False)
            told = "nothing"
        except Exception as error:  # noqa: BLE001 - what it is, is the finding
            told = repr(error)
        await asyncio.to_thread(hosts.load)
        return before, told, await planned_on(hosts, made)

    before, told, after = asyncio.run(one_call_per_model())
    differences = {"before": np.abs(before - alone).max().item(), "after": np.abs(after - alone).max().item()}
    ok = max(differences.values()) <= MAX_DIFFERENCE and told != "nothing"
    return {"ok": ok, "action_difference": differences, "aim": MAX_DIFFERENCE, "a plan while its owner is dead": told}


async def planned_on(backend: Backend, made: Bundle, close: bool = True) -> Array:
    """Normalised actions of a seeded plan, without cameras and text encoder."""
    limits = BatcherConfig(max_rows=SLICE, workers=1, depth=2, slice_s=60.0, arena_retry_s=0.05)
    device = Device.over(made.spec, backend, DeviceConfig(limits, SLICE, slices_in_flight=2, max_texts=4))
    device.batcher.start()
    try:
        job = example_job(made.spec)
        return (await device.planner.plan(job)).actions
    finally:
        await device.batcher.close()
        if close:
            await backend.close()


def example_job(spec: PolicySpec, seed: int = 0) -> PlanJob:
    """A plan on made-up frames and text; `seed` changes its noise alone."""
    rng = np.random.default_rng(SEED)
    latent, video = spec.latent, spec.model.video
    frames = (spec.num_views, video.in_channels, latent.num_memory_frames, latent.height, latent.width)
    text = TextEmbedding(bytes(32), rng.standard_normal((PROMPT, video.caption_channels), np.float32))
    history = np.zeros(spec.model.action.in_channels, np.float32)
    return PlanJob(rng.standard_normal(frames, np.float32), text, history, spec.planner, NamedNoise((SEED, seed)))


def check_service(ground: Ground) -> dict[str, Any]:
    """A whole service on this device, encoder and all, against one on a CPU."""
    if not ground.on_gpu:
        return {"skipped": "this is a CPU"}
    from loadtest.bench import gpu_services

    here, on_cpu = (gpu_services.local(ground.folder, device) for device in (ground.device.type, "cpu"))
    difference = np.abs(here - on_cpu).max().item()
    return {"ok": difference <= MAX_DIFFERENCE, "action_difference": difference, "aim": MAX_DIFFERENCE}


def check_triton(ground: Ground) -> dict[str, Any]:
    """A service on a real Triton against one with the models in its own process, also after a death."""
    from loadtest.bench import gpu_services

    if (obstacle := gpu_services.obstacle()) is not None:
        return {"skipped": obstacle}
    local = gpu_services.local(ground.folder, ground.device.type)
    found = gpu_services.on_triton(ground.folder, ground.device.type)
    differences = {name: np.abs(actions - local).max().item() for name, actions in found.items()}
    return {
        "ok": max(differences.values()) <= MAX_DIFFERENCE,
        "action_difference": differences,
        "aim": MAX_DIFFERENCE,
    }


def time_plan(ground: Ground) -> dict[str, Any]:
    """A plan of the LIBERO policy in bfloat16, in several slices and variants, against its FLOPs as matrix products."""
    spec = presets.find("tiny" if ground.quick else "libero").spec
    case = workload(spec)
    dtype = torch.bfloat16 if ground.on_gpu else torch.float32
    models = random_models(case.config, SEED, dtype).to(ground.device)
    scene, draws = (moved(each, ground.device) for each in example_inputs(case))
    width, floor = case.config.video.width, flops.fast(case).plan
    rate = precision.gemm_rate(dtype, ground.device, SLICE * case.num_tokens, width, 4 * width)
    plans: dict[str, Any] = {}
    kernels: dict[str, dict[str, float]] = {}

    def found(name: str, seconds: float) -> None:
        times = seconds * rate / floor
        plans[name] = {"plan_s": seconds, "tflop_s": floor / seconds / 1e12, "over_floor": times}
        note(f"  {name}: {seconds:.3f} s, {times:.2f} of the floor")

    for slice_size in sorted({SLICE, case.planner.num_video_samples}):
        for name, plan in variants(ground, models, case, slice_size, brief=True).items():
            label = f"{name}, slices of {slice_size}"
            found(label, ground.median_s(lambda plan=plan: plan.plan(scene, draws)))
            if ground.on_gpu:
                kernels[label] = device_ms(lambda plan=plan: plan.plan(scene, draws))
    for robots, seconds in served(ground, spec, models, dtype, Settings()).items():
        found(f"served to {robots} at once", seconds)
    return {
        "dtype": str(dtype),
        "tflop": floor / 1e12,
        "gemm_tflop_s": rate / 1e12,
        "floor_s": floor / rate,
        "plans": plans,
        "kernels_ms": kernels,
        "peak_gb": torch.cuda.max_memory_allocated() / 1e9 if ground.on_gpu else None,
    }


def device_ms(run: Callable[[], object]) -> dict[str, float]:
    """Milliseconds on the device of the kernels that take most, and of all."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        run()
        torch.cuda.synchronize()
    times: Counter[str] = Counter()
    for each in profile.key_averages():
        times[each.key[:80]] += each.self_device_time_total / 1e3
    return {"all": round(times.total(), 1), **{name: round(took, 1) for name, took in times.most_common(KERNELS)}}


def served(ground: Ground, spec: PolicySpec, models: Models, dtype: torch.dtype, told: Settings) -> dict[int, float]:
    """Seconds for each plan by numbers of robots: planner, batcher and arena as a service has them, without its
    edges."""
    config = device_config(told, Size(told.arena.num_slots, workers=1, one_call_per_model=False))
    choices = (told.backend.compile, told.backend.cuda_graphs) if ground.on_gpu else ("off", "off")
    book = ArenaBook(told.arena.num_slots, told.arena.lease_s)
    arena = Arena.in_process(SlotShape.of(spec), book, dtype, ground.device)
    backend = LocalBackend(transformer_runners(models, spec, arena, ROBOTS, *choices))

    async def run() -> dict[int, float]:
        device = Device.over(spec, backend, config)
        device.batcher.start()

        async def plan(seed: int) -> None:
            await device.planner.plan(example_job(spec, seed))

        async def plans(count: int) -> float:
            await asyncio.gather(*map(plan, range(count)))
            started = time.perf_counter()
            for turn in range(ground.repeats):
                await asyncio.gather(*(plan(count * turn + seed) for seed in range(count)))
            return (time.perf_counter() - started) / ground.repeats / count

        try:
            return {count: await plans(count) for count in (1, ROBOTS)}
        finally:
            await device.batcher.close()
            await backend.close()

    return asyncio.run(run())


def workload(spec: PolicySpec) -> Workload:
    """A policy's plan with a short instruction."""
    return Workload(
        spec.model, spec.latent, spec.planner, spec.num_views, spec.chunk, PROMPT, num_padded=spec.max_prompt_tokens
    )


PARTS: Mapping[str, Callable[[Ground], dict[str, Any]]] = {
    "parity": check_parity,
    "exact": check_exact,
    "bfloat16": check_bfloat16,
    "arena": check_arena,
    "service": check_service,
    "triton": check_triton,
    "plan": time_plan,
}


def run(part: Callable[[Ground], dict[str, Any]], ground: Ground) -> dict[str, Any]:
    """A part's findings; what it fails with, if it does."""
    started = time.perf_counter()
    try:
        with torch.inference_mode():
            found = part(ground)
    except Exception as error:  # noqa: BLE001 - the other parts are worth having
        traceback.print_exc()
        found = {"ok": False, "error": f"{type(error).__name__}: {error}"}
    return found | {"part_s": round(time.perf_counter() - started, 1)}


def about(device: torch.device) -> dict[str, Any]:
    """Where and with what this was measured."""
    told: dict[str, Any] = {"name": platform.machine()}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        told = {
            "name": properties.name,
            "memory_gb": round(properties.total_memory / 1e9, 1),
            "capability": f"{properties.major}.{properties.minor}",
            "cuda": torch.version.cuda,
        }
    versions = {"python": platform.python_version(), **{name: installed(name) for name in PACKAGES}}
    return {"device": told, "versions": versions, "command": shlex.join(sys.argv)}


def positive(text: str) -> int:
    """Raises ValueError."""
    if (number := int(text)) < 1:
        raise ValueError(text)
    return number


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def note(words: str) -> None:
    print(f"{time.perf_counter() - STARTED:6.1f} s  {words}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--repeats", type=positive, default=5, help="timed runs of each plan (default %(default)s)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="which (default: all)")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/benchmarks", help="folder (default: docs/benchmarks)")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit(f"--device cuda: expected a GPU that torch {torch.__version__} can use, got none; or --device cpu")
    report = about(torch.device(args.device))
    slug = re.sub(r"[^a-z0-9]+", "-", f"gpu-{report['device']['name']}".lower())
    parts = [] if args.parts == list(PARTS) else args.parts  # some of them are no reason to lose a whole report
    path = args.out / f"{'-'.join([slug, *parts, *(['quick'] if args.quick else [])])}.json"
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        ground = Ground(torch.device(args.device), args.quick, args.repeats, Path(folder))
        for name in args.parts:
            note(f"== {name}")
            report[name] = run(PARTS[name], ground)
            note(json.dumps(report[name]))
            path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    wrong = [name for name in args.parts if not report[name].get("ok", True)]
    note(f"wrote {path}; {'not as they should be: ' + ', '.join(wrong) if wrong else 'all checks passed'}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
