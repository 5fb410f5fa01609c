"""Measures the cost of Triton Inference Server against models in the service's own process.

Four parts:

- the time that Triton adds to each backend call and to a plan at `tiny`; both backends make the same plans in turn
- the tensor bytes between gateway and Triton at LIBERO shapes, by tensor name
- start time and memory of the whole service
- the time until robots get answers again after a model's process is killed

Progress goes to stderr. The last line of stdout is one JSON object with the figures and aims.
"""

from __future__ import annotations

import argparse
import asyncio
import concurrent.futures
import json
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from loadtest.aims import Aim, at_most
from loadtest.bench.bare_planner import REPOSITORY, BarePlanner, on_local, on_triton
from loadtest.bench.plan import observation
from wavserve.backends.triton.wheel import find_obstacle
from wavserve.bundle.bundle import Bundle
from wavserve.clients.plan_client import PlanClient
from wavserve.core.errors import WavserveError
from wavserve.core.spec import ExpertConfig, ModelConfig, VideoConfig
from wavserve.core.verbs import MODELS
from wavserve.models.weights import presets
from wavserve.models.weights.preset_specs import Preset
from wavserve.system import serve_process

MAX_ADDED_MS = 2.0
"""The aim for the p50 of the time that Triton adds to a backend call."""
IMAGES = frozenset({"pixels", "frames"})
"""Tensors that hold images."""
WARM_UP = 3
ROBOTS = 8
QUICK = {"num_iterations": 1, "num_video_samples": 4, "num_value_samples": 2, "value_elite_fraction": 0.5}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plans", type=int, default=40, help="plans on each backend (default %(default)s)")
    parser.add_argument("--kills", type=int, default=3, help="kills of each model (default %(default)s)")
    args = parser.parse_args()
    serve_process.raise_on_sigterm()
    if (obstacle := find_obstacle(REPOSITORY)) is not None:
        sys.exit(f"no Triton can run on this machine: {obstacle}")
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measured(Path(folder), args.plans, args.kills)))


def measured(folder: Path, plans: int, kills: int) -> dict[str, Any]:
    tiny = presets.create("tiny", folder / "tiny")
    shapes = presets.make(libero_shapes(), folder / "libero_shapes")
    return report(
        {
            "added": asyncio.run(added(tiny, plans)),
            "bytes_libero_shapes": asyncio.run(traffic(shapes)),
            "service": {backend: service(folder, tiny, backend) for backend in ("local", "triton-embedded")},
            "recovery_s": recovery(folder, tiny, kills),
        }
    )


def report(figures: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON object of the last line, from the figures of the four parts."""
    return {"bench": "triton", **figures, "aims": aims_of(figures["added"])}


def aims_of(times: Mapping[str, Any]) -> list[Aim]:
    """The aims for the time that Triton adds to any call, and to the calls of each verb."""
    calls = {"any call": times["call_ms"], **times["call_ms_by_verb"]}
    return [at_most(f"{name}: p50 that Triton adds, ms", MAX_ADDED_MS, added["p50"]) for name, added in calls.items()]


def libero_shapes() -> Preset:
    """The preset `libero` with a model of two narrow layers.

    It keeps all sizes of `libero` that determine the tensors of a call: views, latents, channels, chunk, prompt width,
    K, N, M. The model's features are in no call.
    """
    libero = presets.find("libero")
    model = ModelConfig(
        VideoConfig(128, 128, num_layers=2, num_heads=2, head_dim=32, caption_channels=4096),
        ExpertConfig(10, 10, num_heads=2, head_dim=16, rope_base=57),
        ExpertConfig(15, 15, num_heads=2, head_dim=16, rope_base=54),
    )
    return replace(libero, spec=replace(libero.spec, name="libero_shapes", model=model), dtype=torch.float32)


async def added(bundle: Bundle, plans: int) -> dict[str, Any]:
    """Times of the same plans on both backends in turn, and the largest difference of their actions."""
    difference = 0.0
    async with on_local(bundle) as local, on_triton(bundle) as triton:
        for number in range(WARM_UP + plans):
            progress(f"plan {number + 1}/{WARM_UP + plans} on each")
            if number == WARM_UP:
                for each in (local, triton):
                    each.plans.clear()
                    each.timed.calls.clear()
            ours, theirs = await rested(local.plan(number)), await rested(triton.plan(number))
            difference = max(difference, float(np.abs(ours - theirs).max()))
        print(file=sys.stderr)
        calls = by_verb(local, triton)
    every = [extra for pairs in calls.values() for extra in pairs["added"]]
    return {
        "plans": plans,
        "K_N_M": samples_of(bundle),
        "call_ms": percentiles(every),
        "call_ms_by_verb": {
            verb: {"local_p50": p50(times["local"]), "triton_p50": p50(times["triton"]), **percentiles(times["added"])}
            for verb, times in calls.items()
        },
        "plan_ms": {
            "local": percentiles(local.plans),
            "triton": percentiles(triton.plans),
            "added": percentiles([b - a for a, b in zip(local.plans, triton.plans, strict=True)]),
            "ratio_p50": round(p50(triton.plans) / p50(local.plans), 3),
        },
        "max_difference": difference,
    }


async def rested(plan: Awaitable[np.ndarray]) -> np.ndarray:
    """Waits until the threads of the other backend's last call have stopped spinning. Then makes a plan."""
    await asyncio.sleep(0.1)
    return await plan


def by_verb(local: BarePlanner, triton: BarePlanner) -> dict[str, dict[str, list[float]]]:
    """Seconds of the same calls on both backends and their differences, by verb."""
    times: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    ours, theirs = ([call for call in each.timed.calls if call[0] != "encode_text"] for each in (local, triton))
    for (verb, here), (other, there) in zip(ours, theirs, strict=True):
        assert verb == other, "both make the same calls"
        times[verb]["local"].append(here)
        times[verb]["triton"].append(there)
        times[verb]["added"].append(there - here)
    return times


async def traffic(bundle: Bundle) -> dict[str, Any]:
    """Tensor bytes of three plans with one instruction; for the last plan also by tensor name."""
    sent: Counter[str] = Counter()
    received: Counter[str] = Counter()

    def count(verb: str, inputs: Mapping[str, int], outputs: Mapping[str, int]) -> None:
        sent.update({f"{verb}.{name}": size for name, size in inputs.items()})
        received.update({f"{verb}.{name}": size for name, size in outputs.items()})

    plans = {}
    async with on_triton(bundle, count) as triton:
        for number, which in enumerate(("first", "second", "later")):
            progress(f"LIBERO shapes, plan {number + 1}/3")
            sent.clear()
            received.clear()
            await triton.plan(number)
            plans[which] = {
                "besides_images": sum(size for name, size in (sent + received).items() if not is_image(name)),
                "images": sum(size for name, size in (sent + received).items() if is_image(name)),
            }
        print(file=sys.stderr)
    return {
        "K_N_M": samples_of(bundle),
        **plans,
        "sent_later": dict(sent.most_common()),
        "received_later": dict(received.most_common()),
    }


def samples_of(bundle: Bundle) -> list[int]:
    planner = bundle.spec.planner
    return [planner.num_iterations, planner.num_video_samples, planner.num_value_samples]


def is_image(name: str) -> bool:
    return name.partition(".")[2] in IMAGES


def service(folder: Path, tiny: Bundle, backend: str) -> dict[str, Any]:
    """Seconds from start to ready, and the private memory of each process after a plan."""
    progress(f"service with {backend}")
    started = time.perf_counter()
    with serve_process.running(
        folder / f"{backend}.log", ["--backend", backend, "--bundle", str(tiny.folder)]
    ) as running:
        ready_s = time.perf_counter() - started
        with PlanClient(running.grpc) as client:
            client.plan(observation({}))
        processes = [psutil.Process(running.process.pid), *psutil.Process(running.process.pid).children(recursive=True)]
        memory = {role(process): round(process.memory_full_info().uss / 1e6) for process in processes}
    print(file=sys.stderr)
    return {"start_to_ready_s": round(ready_s, 2), "private_memory_mb": memory, "total_mb": sum(memory.values())}


def role(process: psutil.Process) -> str:
    """The model that a process serves, or `gateway`, `tritonserver`, `reaper` or `exited`."""
    try:
        command = " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        command = ""
    if not command:  # a zombie has no arguments
        return "exited"
    model = next((model for model in MODELS if f"/{model}/" in command), None)
    if model is None:
        return next((name for name in ("reaper", "tritonserver") if name in command), "gateway")
    return model


def recovery(folder: Path, tiny: Bundle, kills: int) -> dict[str, Any]:
    """Seconds from the kill of a model's process to the next good answer, while eight robots plan."""
    seconds: dict[str, list[float]] = defaultdict(list)
    flags = ["--backend", "triton-embedded", "--bundle", str(tiny.folder)]
    with serve_process.running(folder / "recovery.log", flags) as running, Robots(running.grpc) as robots:
        for number in range(kills):
            for model in MODELS:
                progress(f"kill {number + 1}/{kills} of {model}")
                seconds[model].append(kill(running, robots, model))
                time.sleep(3.0)
    print(file=sys.stderr)
    return {
        model: {"median": round(float(np.median(times)), 2), "max": round(max(times), 2)}
        for model, times in seconds.items()
    }


def kill(running: serve_process.Child, robots: Robots, model: str) -> float:
    """Kills a model's process. Returns the seconds to the first answer after the service is ready again."""
    [model_process] = [p for p in psutil.Process(running.process.pid).children(recursive=True) if role(p) == model]
    model_process.kill()
    killed = time.perf_counter()
    while running.is_ready():
        time.sleep(0.01)
    while not running.is_ready():
        time.sleep(0.01)
    ready = time.perf_counter()
    while not (good := [done for done in robots.answered if done > ready]):
        time.sleep(0.01)
    return good[0] - killed


class Robots:
    """Eight robots that plan without a pause. `answered` holds the time of each good answer."""

    def __init__(self, target: str) -> None:
        self.answered: list[float] = []
        self._target = target
        self._stop = threading.Event()
        self._pool = concurrent.futures.ThreadPoolExecutor(ROBOTS)

    def __enter__(self) -> Robots:
        self._running = [self._pool.submit(self._run, seed) for seed in range(ROBOTS)]
        time.sleep(3.0)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for running in self._running:
            running.result()

    def _run(self, seed: int) -> None:
        sent = replace(observation(dict(QUICK)), seed=seed)
        with PlanClient(self._target) as client:
            while not self._stop.is_set():
                try:
                    client.plan(sent, timeout_s=60)
                    self.answered.append(time.perf_counter())
                except WavserveError:
                    self._stop.wait(0.05)


def percentiles(seconds: list[float]) -> dict[str, float]:
    """The p50 and p99 in milliseconds."""
    low, high = np.percentile(seconds, [50, 99]) * 1000
    return {"p50": round(float(low), 2), "p99": round(float(high), 2)}


def p50(seconds: list[float]) -> float:
    """The median in milliseconds."""
    return round(float(np.median(seconds)) * 1000, 2)


def progress(text: str) -> None:
    print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
