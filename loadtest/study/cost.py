"""Time and memory of a plan against K (the paper's figure 6). Each K has a process of its own, for a peak of its own.

    python -m loadtest.study.cost --bundle FOLDER --k 3

prints one JSON object. Knows the policy and no simulator.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from wavserve.app.in_process import InProcessPolicy
from wavserve.app.settings_sources import Given, load_from_process
from wavserve.bundle.bundle import load_spec
from wavserve.clients.libero.plan_source import EpisodePlan, SourceConfig, UnarySource
from wavserve.core.errors import WavserveError
from wavserve.core.files import write_whole
from wavserve.core.normalise import accepted_range

NUM_PLANS = 20
WARM_UP = 3


@dataclass(frozen=True, slots=True)
class CostOfK:
    """Plans of one robot, one after another, in a process of its own."""

    k: int
    plan_ms_p50: float
    plan_ms_p95: float
    peak_mb: float
    """of the process: models, arena and all"""


def costs(bundle: str, iterations: Sequence[int]) -> list[CostOfK]:
    """Of each K. Raises WavserveError with the last line of a process that failed."""
    return [_in_a_process(bundle, k) for k in iterations]


def costs_on_file(file: Path, measure: Callable[[], list[CostOfK]]) -> list[CostOfK]:
    """The costs on file, or those that are measured now, which then go on file."""
    if not file.exists():
        write_whole(file, json.dumps([asdict(each) for each in measure()], indent=2).encode())
    return [CostOfK(**each) for each in json.loads(file.read_bytes())]


def _in_a_process(bundle: str, k: int) -> CostOfK:
    command = [sys.executable, "-m", "loadtest.study.cost", "--bundle", bundle, "--k", str(k)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it wrote nothing"])[-1]
        raise WavserveError(f"{' '.join(command[1:])}: ended with code {done.returncode}: {last}")
    return CostOfK(**json.loads(done.stdout.splitlines()[-1]))


def measured(bundle: str, k: int) -> CostOfK:
    """The policy's own N, M and elites; grey pictures, because time does not depend on them."""
    loaded = load_from_process(None, [Given("bundle.path", bundle, "flag --bundle")])
    options = {"mode": "paper", "num_iterations": k} if k else {"mode": "off"}
    with closing(InProcessPolicy(loaded.settings)) as policy:
        info = policy.policy()
        source = UnarySource(policy, info, SourceConfig(rotation=0, options=options))
        source.begin("pick up the milk and place it in the basket")
        images = {each.name: np.full((each.height, each.width, 3), 128, np.uint8) for each in info.cameras}
        state = np.mean(accepted_range(load_spec(Path(bundle)).state.norm), axis=0)
        taken = []
        for number in range(WARM_UP + NUM_PLANS):
            request = EpisodePlan(
                images=images, state=state, control_step=8 * number, executed_steps=8 if number else 0, seed=number
            )
            began = time.perf_counter()
            source.plan(request)
            taken.append((time.perf_counter() - began) * 1e3)
        source.close()
    p50, p95 = np.percentile(taken[WARM_UP:], (50, 95))
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return CostOfK(k, round(float(p50), 2), round(float(p95), 2), round(peak_mb, 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", required=True, metavar="FOLDER")
    parser.add_argument("--k", type=int, required=True, metavar="K")
    args = parser.parse_args()
    print(json.dumps(asdict(measured(args.bundle, args.k))))


if __name__ == "__main__":
    main()
