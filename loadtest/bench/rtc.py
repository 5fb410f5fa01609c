"""Compares a decode that continues a left-over (real-time chunking) with a plain one, in one process.

Cases: the sizes of `tiny`, and LIBERO shapes on a model of 8 layers and width 256. Paths, in turn:

- `decode`: the service's decode, uncompiled
- `compiled`: the same, compiled by torch
- `prefix`: the decode after a clean prefix (`rtc_trained`), uncompiled
- `guided`: the guided decode (`rtc_guided`), which is never compiled

A decode has its keys and values and all flow steps. Ratios are those of the fastest of `--repeats` turns, because other
work on the machine can only increase a time. Progress goes to stderr. The last line of stdout is one JSON object with
the figures and aims.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from loadtest.aims import Aim, at_most
from loadtest.bench.exact_plan import CASES, SEED
from wavserve.core.rtc import prefix_weights
from wavserve.models.fast.compiling import compiled
from wavserve.models.fast.expert import FastAction
from wavserve.models.fast.guided import GuidedAction
from wavserve.models.flops import Workload
from wavserve.models.networks import flow
from wavserve.models.networks.guidance import Guidance, Prefix, guided
from wavserve.models.runners.loading import DYNAMIC_ROWS
from wavserve.models.weights.weights import random_models

MAX_RATIO = 4.0
"""The aim for the time of a guided decode over a plain one, both uncompiled."""
MAX_DIFFERENCE = 1e-4
"""The aim for the largest difference of a guided action from the plain path."""
DELAY, HORIZON, MAX_WEIGHT = 3, 10, 10.0
CPU = torch.device("cpu")


class Decodes:
    """The paths of one case, on the same weights, features, noise and left-over."""

    def __init__(self, case: Workload, compile_blocks: bool) -> None:
        generator = torch.Generator().manual_seed(SEED)
        normal = partial(torch.randn, generator=generator)
        config, layers, chunk = case.config, range(case.config.video.num_layers), case.chunk
        self._case, self._dit = case, random_models(config, SEED).action
        self._video = [normal(1, case.num_tokens, config.video.width) for _ in layers]
        self._value = [normal(1, chunk, config.value.width) for _ in layers]
        channels = config.action.in_channels
        self._noise, self._history = normal(1, chunk, channels), normal(1, channels)
        left_over = normal(1, chunk, channels // 2)
        weights = torch.from_numpy(prefix_weights("LINEAR", DELAY, HORIZON, chunk))[None]
        self._guidance = Guidance(left_over, weights, torch.tensor([MAX_WEIGHT]))
        self._prefix = Prefix(left_over, torch.tensor([DELAY]))
        self._guided = GuidedAction(self._dit, chunk)
        make = partial(FastAction, self._dit, config, chunk, contexts=[case.num_tokens, chunk])
        plain = make()
        self.paths: dict[str, Callable[[], Tensor]] = {
            "decode": partial(self._free, plain),
            "prefix": partial(self._after_prefix, plain),
            "guided": self._by_guidance,
        }
        if compile_blocks:
            self.paths["compiled"] = partial(self._free, compiled("action", make, DYNAMIC_ROWS, CPU, True))

    def oracle(self) -> Tensor:
        """The guided actions by the plain path."""

        def velocity(x: Tensor, sigma: float) -> Tensor:
            timestep = torch.full(x.shape[:2], sigma * flow.TIMESTEPS)
            out: Tensor = self._dit(x, timestep, self._video, self._value, self._history[:, None]).velocity
            return out

        return flow.integrate(guided(velocity, self._guidance), self._noise, self._steps)

    @property
    def _steps(self) -> int:
        return self._case.planner.num_flow_steps

    def _free(self, model: FastAction) -> Tensor:
        contexts = model.cross_kv(self._video.__getitem__), model.value_kv(self._value.__getitem__)
        return model.integrate(self._noise, self._history, *contexts, self._steps)

    def _after_prefix(self, model: FastAction) -> Tensor:
        contexts = model.cross_kv(self._video.__getitem__), model.value_kv(self._value.__getitem__)
        return model.integrate_after(self._prefix, self._noise, self._history, contexts, self._steps)

    def _by_guidance(self) -> Tensor:
        reads = self._video.__getitem__, self._value.__getitem__
        return self._guided.integrate(self._noise, self._history, reads, self._steps, self._guidance)


def measure(name: str, repeats: int, compile_blocks: bool) -> dict[str, Any]:
    """The figures of a case, from `repeats` turns in which the paths alternate. A first turn does not count."""
    decodes = Decodes(CASES[name](), compile_blocks)
    seconds: dict[str, list[float]] = {path: [] for path in decodes.paths}
    with torch.inference_mode():
        for _ in range(repeats + 1):
            for path, run in decodes.paths.items():
                started = time.perf_counter()
                run()
                seconds[path].append(time.perf_counter() - started)
        difference = (decodes.paths["guided"]() - decodes.oracle()).abs().max().item()
    median = {path: statistics.median(times[1:]) for path, times in seconds.items()}
    fastest = {path: min(times[1:]) for path, times in seconds.items()}
    ratio = {path: fastest[path] / fastest["decode"] for path in fastest}
    print(f"{name}: {', '.join(f'{p} {1e3 * s:.1f} ms' for p, s in fastest.items())}", file=sys.stderr, flush=True)
    figures = {"median_s": median, "fastest_s": fastest, "ratio": ratio, "guided_difference": difference}
    return {"repeats": repeats, **figures}


def report(cases: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The JSON object of the last line, from the figures of each case."""
    return {
        "bench": "rtc",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        **cases,
        "aims": [aim for name, figures in cases.items() for aim in aims_of(name, figures)],
    }


def aims_of(name: str, figures: Mapping[str, Any]) -> list[Aim]:
    """The aims of one case."""
    return [
        at_most(f"{name}: time of a guided decode over a plain one's", MAX_RATIO, figures["ratio"]["guided"]),
        at_most(
            f"{name}: largest difference of a guided action from the plain path",
            MAX_DIFFERENCE,
            figures["guided_difference"],
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="only the tiny case, without the compiled path")
    parser.add_argument("--repeats", type=int, default=20, help="turns of each path (default %(default)s)")
    args = parser.parse_args()
    names = ["tiny"] if args.quick else list(CASES)
    print(json.dumps(report({name: measure(name, args.repeats, not args.quick) for name in names})))


if __name__ == "__main__":
    main()
