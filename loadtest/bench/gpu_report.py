"""Checks and times the models on a GPU in one call. `make gpu-report` writes docs/benchmarks/gpu-NAME.json.

Parts:

- parity: recorded plans of the released code, run with random weights, through the planner
- exact: fast, compiled and graphed blocks against the plain path
- bfloat16: its elites and actions against those of float32
- arena: the feature arena between processes (CUDA IPC), also after its owner's process is killed
- service: a whole service against one on a CPU
- triton: a service on a real Triton Inference Server against a local one; skipped where Triton cannot run
- plan: the time of a LIBERO plan of the 2.3 B model against the time of its FLOPs as matrix products

If a part fails, the others still run. The report is written after each part. `--device cpu --quick` tries the script
itself on small sizes. Progress goes to stderr. The last line of stdout is the report as one JSON object.
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
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from loadtest.bench.exact import MAX_DIFFERENCE, MIN_AGREEMENT, agreement, planned
from loadtest.bench.exact_plan import SEED, FastPlan, example_inputs, libero_shapes, moved, tiny
from loadtest.bench.gpu_aims import NO_ERROR, WITHOUT_OWNER, aims_of
from loadtest.bench.gpu_hosts import Hosts
from wavserve.app import parity
from wavserve.app.device_config import BackendCapacity, device_config
from wavserve.app.settings import Settings
from wavserve.backends.base import Backend
from wavserve.backends.local import LocalBackend
from wavserve.bundle.bundle import Bundle
from wavserve.core.spec import PolicySpec
from wavserve.core.types import Array, TextEmbedding
from wavserve.models import flops
from wavserve.models.arena.arena import Arena, SlotShape
from wavserve.models.arena.book import ArenaBook
from wavserve.models.fast.graphs import cuda_capture
from wavserve.models.flops import Workload
from wavserve.models.runners import precision
from wavserve.models.runners.loading import RunnerConfig, load_runners, transformer_runners
from wavserve.models.weights import presets
from wavserve.models.weights.weights import Models, random_models
from wavserve.planning.device import Device, DeviceConfig
from wavserve.planning.model_calls import PlanJob
from wavserve.planning.proposal import NamedNoise
from wavserve.scheduling.batcher_config import BatcherConfig

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
class Setup:
    """The options that all parts share."""

    device: torch.device
    quick: bool
    repeats: int
    folder: Path
    """folder for bundles and logs; deleted at the end"""

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    def synchronize(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize()

    def median_s(self, run: Callable[[], object]) -> float:
        """Seconds of the median run, after one run that is not timed."""
        run()
        times = []
        for _ in range(self.repeats):
            self.synchronize()
            started = time.perf_counter()
            run()
            self.synchronize()
            times.append(time.perf_counter() - started)
        return statistics.median(times)


def check_parity(setup: Setup) -> dict[str, Any]:
    """Recorded plans of the released code through planner, batcher, arena and runners on this device, in float32."""
    checks = parity.check_planner(ROOT / "tests/parity", setup.device.type)
    failed = [f"{each.fixture} {each.tensor}: {each.error:.2e}" for each in checks if not each.ok]
    worst = max(each.error for each in checks)
    return {"ok": bool(checks) and not failed, "checks": len(checks), "failed": failed, "max_error": worst}


def check_exact(setup: Setup) -> dict[str, Any]:
    """Every variant of the fast path against the plain one, in float32: differences, and seconds of a plan."""
    case = tiny() if setup.quick else libero_shapes()
    models = random_models(case.config, SEED).to(setup.device)
    scene, draws = moved(example_inputs(case), setup.device)
    plain = planned(case, models, scene, draws)
    seconds = {"plain": setup.median_s(lambda: planned(case, models, scene, draws))}
    differences = {}
    for name, plan in variants(setup, models, case).items():
        differences[name] = (plan.plan(scene, draws) - plain).abs().max().item()
        seconds[name] = setup.median_s(partial(plan.plan, scene, draws))
    ok = all(difference <= MAX_DIFFERENCE for difference in differences.values())
    return {"ok": ok, "action_difference": differences, "aim": MAX_DIFFERENCE, "plan_s": seconds}


def variants(
    setup: Setup, models: Models, case: Workload, slice_size: int = SLICE, brief: bool = False
) -> dict[str, FastPlan]:
    """The variants of the fast path. With `brief` only the first and the last.

    On a CPU only the first: the benchmark `exact` measures the others.
    """
    capture = cuda_capture() if setup.on_gpu else None
    wanted = {"fast": (False, None), "compiled": (True, None), "graphs": (False, capture), BEST: (True, capture)}
    names = ["fast"] if not setup.on_gpu else ["fast", BEST] if brief else wanted
    return {name: FastPlan(models, case, *wanted[name], slice_size) for name in names}


def check_bfloat16(setup: Setup) -> dict[str, Any]:
    """How often bfloat16 chooses the elites of float32, and how much its actions differ."""
    case = tiny() if setup.quick else libero_shapes()
    found = agreement(case, 1 if setup.quick else BFLOAT16_PLANS, setup.device)
    scene, draws = moved(example_inputs(case), setup.device)
    full, half = (
        FastPlan(random_models(case.config, SEED, dtype).to(setup.device), case).plan(scene, draws).float()
        for dtype in (torch.float32, torch.bfloat16)
    )
    error = (full - half).abs()
    difference = {"max": error.max().item(), "mean": error.mean().item()}
    ok = min(found["same_sets"].values()) >= MIN_AGREEMENT
    return {"ok": ok, **found, "aim": MIN_AGREEMENT, "action_difference": difference}


def check_arena(setup: Setup) -> dict[str, Any]:
    """Models in separate processes against models in this one: plans before and after the owner's process exit."""
    bundle = presets.create("tiny", setup.folder / "tiny")
    config = RunnerConfig(setup.device.type, "float32", None, SLOTS, lease_s=60.0, max_texts=4)
    alone = asyncio.run(planned_on(LocalBackend(load_runners(bundle, config).runners), bundle))
    hosts = Hosts(bundle.folder, config)

    async def in_processes() -> tuple[Array, str, Array]:
        await asyncio.to_thread(hosts.load)
        before = await planned_on(hosts, bundle, close=False)
        hosts.kill("video_dit")
        try:
            await planned_on(hosts, bundle, close=False)
            failure = NO_ERROR
        except Exception as error:  # noqa: BLE001 - the report says which error it is
            failure = repr(error)
        await asyncio.to_thread(hosts.load)
        return before, failure, await planned_on(hosts, bundle)

    before, failure, after = asyncio.run(in_processes())
    differences = {"before": np.abs(before - alone).max().item(), "after": np.abs(after - alone).max().item()}
    ok = max(differences.values()) <= MAX_DIFFERENCE and failure != NO_ERROR
    return {"ok": ok, "action_difference": differences, "aim": MAX_DIFFERENCE, WITHOUT_OWNER: failure}


async def planned_on(backend: Backend, bundle: Bundle, close: bool = True) -> Array:
    """Normalised actions of a seeded plan on made-up latents and text, without the encoder."""
    limits = BatcherConfig(max_rows=SLICE, workers=1, depth=2, slice_s=60.0, arena_retry_s=0.05)
    device = Device.over(bundle.spec, backend, DeviceConfig(limits, SLICE, slices_in_flight=2, max_texts=4))
    device.batcher.start()
    try:
        job = example_job(bundle.spec)
        return (await device.planner.plan(job)).actions
    finally:
        await device.batcher.close()
        if close:
            await backend.close()


def example_job(spec: PolicySpec, seed: int = 0) -> PlanJob:
    """A plan on made-up latents and text. `seed` changes its noise only."""
    rng = np.random.default_rng(SEED)
    latent, video = spec.latent, spec.model.video
    frames = (spec.num_views, video.in_channels, latent.num_memory_frames, latent.height, latent.width)
    text = TextEmbedding(bytes(32), rng.standard_normal((PROMPT, video.caption_channels), np.float32))
    history = np.zeros(spec.model.action.in_channels, np.float32)
    return PlanJob(rng.standard_normal(frames, np.float32), text, history, spec.planner, NamedNoise((SEED, seed)))


def check_service(setup: Setup) -> dict[str, Any]:
    """A whole service on this device, with its encoder, against one on a CPU."""
    if not setup.on_gpu:
        return {"skipped": "the device is a CPU"}
    from loadtest.bench import gpu_services

    here, on_cpu = (gpu_services.local(setup.folder, device) for device in (setup.device.type, "cpu"))
    difference = np.abs(here - on_cpu).max().item()
    return {"ok": difference <= MAX_DIFFERENCE, "action_difference": difference, "aim": MAX_DIFFERENCE}


def check_triton(setup: Setup) -> dict[str, Any]:
    """A service on a real Triton, before and after a process exit, against one with the models in its own process."""
    from loadtest.bench import gpu_services

    if (obstacle := gpu_services.obstacle()) is not None:
        return {"skipped": obstacle}
    local = gpu_services.local(setup.folder, setup.device.type)
    found = gpu_services.on_triton(setup.folder, setup.device.type)
    differences = {name: np.abs(actions - local).max().item() for name, actions in found.items()}
    return {
        "ok": max(differences.values()) <= MAX_DIFFERENCE,
        "action_difference": differences,
        "aim": MAX_DIFFERENCE,
    }


def time_plan(setup: Setup) -> dict[str, Any]:
    """Times of a LIBERO plan in bfloat16, by slice size and variant.

    Their lower bound is the time of the plan's FLOPs as matrix products.
    """
    spec = presets.find("tiny" if setup.quick else "libero").spec
    case = workload(spec)
    dtype = torch.bfloat16 if setup.on_gpu else torch.float32
    models = random_models(case.config, SEED, dtype).to(setup.device)
    scene, draws = moved(example_inputs(case), setup.device)
    width, plan_flops = case.config.video.width, flops.fast(case).plan
    rate = precision.gemm_rate(dtype, setup.device, SLICE * case.num_tokens, width, 4 * width)
    lower_bound_s = plan_flops / rate
    plans: dict[str, Any] = {}
    kernels: dict[str, dict[str, float]] = {}

    def record(name: str, seconds: float) -> None:
        ratio = seconds / lower_bound_s
        plans[name] = {"plan_s": seconds, "tflop_s": plan_flops / seconds / 1e12, "over_lower_bound": ratio}
        note(f"  {name}: {seconds:.3f} s, {ratio:.2f} x the lower bound")

    for slice_size in sorted({SLICE, case.planner.num_video_samples}):
        for name, plan in variants(setup, models, case, slice_size, brief=True).items():
            label = f"{name}, slices of {slice_size}"
            record(label, setup.median_s(partial(plan.plan, scene, draws)))
            if setup.on_gpu:
                kernels[label] = device_ms(partial(plan.plan, scene, draws))
    for robots, seconds in served(setup, spec, models, dtype, Settings()).items():
        record(f"served to {robots} at once", seconds)
    return {
        "dtype": str(dtype),
        "tflop": plan_flops / 1e12,
        "gemm_tflop_s": rate / 1e12,
        "lower_bound_s": lower_bound_s,
        "plans": plans,
        "kernels_ms": kernels,
        "peak_gb": torch.cuda.max_memory_allocated() / 1e9 if setup.on_gpu else None,
    }


def device_ms(run: Callable[[], object]) -> dict[str, float]:
    """Milliseconds on the device of all kernels, and of those that take longest."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        run()
        torch.cuda.synchronize()
    times: Counter[str] = Counter()
    for each in profile.key_averages():
        times[each.key[:80]] += each.self_device_time_total / 1e3
    return {"all": round(times.total(), 1), **{name: round(took, 1) for name, took in times.most_common(KERNELS)}}


def served(setup: Setup, spec: PolicySpec, models: Models, dtype: torch.dtype, settings: Settings) -> dict[int, float]:
    """Number of robots -> seconds for each plan.

    Plans run through planner, batcher and arena as in a service, but without edges.
    """
    config = device_config(settings, BackendCapacity(settings.arena.num_slots, workers=1, one_call_per_model=False))
    choices = (settings.backend.compile, settings.backend.cuda_graphs) if setup.on_gpu else ("off", "off")
    book = ArenaBook(settings.arena.num_slots, settings.arena.lease_s)
    arena = Arena.in_process(SlotShape.of(spec), book, dtype, setup.device)
    backend = LocalBackend(transformer_runners(models, spec, arena, ROBOTS, *choices))

    async def run() -> dict[int, float]:
        device = Device.over(spec, backend, config)
        device.batcher.start()

        async def plan(seed: int) -> None:
            await device.planner.plan(example_job(spec, seed))

        async def plans(count: int) -> float:
            await asyncio.gather(*map(plan, range(count)))
            started = time.perf_counter()
            for turn in range(setup.repeats):
                await asyncio.gather(*(plan(count * turn + seed) for seed in range(count)))
            return (time.perf_counter() - started) / setup.repeats / count

        try:
            return {count: await plans(count) for count in (1, ROBOTS)}
        finally:
            await device.batcher.close()
            await backend.close()

    return asyncio.run(run())


def workload(spec: PolicySpec) -> Workload:
    """A policy's plan, with an instruction of PROMPT tokens."""
    return Workload(
        spec.model, spec.latent, spec.planner, spec.num_views, spec.chunk, PROMPT, num_padded=spec.max_prompt_tokens
    )


PARTS: Mapping[str, Callable[[Setup], dict[str, Any]]] = {
    "parity": check_parity,
    "exact": check_exact,
    "bfloat16": check_bfloat16,
    "arena": check_arena,
    "service": check_service,
    "triton": check_triton,
    "plan": time_plan,
}


def run(part: Callable[[Setup], dict[str, Any]], setup: Setup) -> dict[str, Any]:
    """Runs a part. Returns its findings, or its error."""
    started = time.perf_counter()
    try:
        with torch.inference_mode():
            found = part(setup)
    except Exception as error:  # noqa: BLE001 - the other parts still run
        traceback.print_exc()
        found = {"ok": False, "error": f"{type(error).__name__}: {error}"}
    return found | {"part_s": round(time.perf_counter() - started, 1)}


def about(device: torch.device) -> dict[str, Any]:
    """The device, the versions and the command of this report."""
    described: dict[str, Any] = {"name": platform.machine()}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        described = {
            "name": properties.name,
            "memory_gb": round(properties.total_memory / 1e9, 1),
            "capability": f"{properties.major}.{properties.minor}",
            "cuda": torch.version.cuda,
        }
    versions = {"python": platform.python_version(), **{name: installed(name) for name in PACKAGES}}
    return {"device": described, "versions": versions, "command": shlex.join(sys.argv)}


def positive(text: str) -> int:
    """Raises ValueError for a number below 1."""
    if (number := int(text)) < 1:
        raise ValueError(text)
    return number


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def note(text: str) -> None:
    print(f"{time.perf_counter() - STARTED:6.1f} s  {text}", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="device (default %(default)s)")
    parser.add_argument("--quick", action="store_true", help="use small sizes, to try the script")
    parser.add_argument("--repeats", type=positive, default=5, help="timed runs of each plan (default %(default)s)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="parts to run (default: all)")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "docs/benchmarks", help="output folder (default: docs/benchmarks)"
    )
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit(f"--device cuda: expected a GPU that torch {torch.__version__} can use, got none; try --device cpu")
    report = about(torch.device(args.device)) | {"aims": []}
    slug = re.sub(r"[^a-z0-9]+", "-", f"gpu-{report['device']['name']}".lower())
    parts = [] if args.parts == list(PARTS) else args.parts  # a report of some parts does not replace a whole one
    path = args.out / f"{'-'.join([slug, *parts, *(['quick'] if args.quick else [])])}.json"
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        setup = Setup(torch.device(args.device), args.quick, args.repeats, Path(folder))
        for name in args.parts:
            note(f"== {name}")
            report[name] = run(PARTS[name], setup)
            report["aims"] = aims_of(report)
            note(json.dumps(report[name]))
            path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    wrong = [name for name in args.parts if not report[name].get("ok", True)]
    note(f"wrote {path}; {'failed: ' + ', '.join(wrong) if wrong else 'all checks passed'}")
    print(json.dumps(report))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
