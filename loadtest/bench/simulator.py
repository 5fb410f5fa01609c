"""Times LIBERO environments: opening, resets, control steps, pictures; processor time and memory of the process.

Times a call on the wall and in processor time of the simulator's process, which other work on the machine changes less.
Progress goes to stderr. The last line of stdout is one JSON object with the figures and an empty list of aims. Needs
`make libero`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np

from loadtest.aims import Aim
from wavserve.core.simulation import Start
from wavserve.simulation.config import SimulationConfig, renderer_of
from wavserve.simulation.environment import open_environment
from wavserve.simulation.process import SimulatorProcess

SUITES = ("libero_spatial", "libero_object", "libero_goal", "libero_10")
ACTION = np.array([0, 0, 0.2, 0, 0, 0, -1.0])
_USER_TIME, _SYSTEM_TIME = 11, 12  # indices after the command's name in /proc/PID/stat
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=SimulationConfig().size, help="of a picture, in pixels")
    parser.add_argument("--no-antialiasing", action="store_true", help="render without anti-aliasing")
    args = parser.parse_args()
    config = SimulationConfig(args.size, not args.no_antialiasing, renderer_of(os.environ))
    began = time.perf_counter()
    with closing(open_environment(config, os.environ)) as environment:
        found: dict[str, object] = {"open_s": round(time.perf_counter() - began, 1), **environment.versions()}
        for suite in SUITES:
            found[suite] = figures(environment, suite)
            print(suite, found[suite], file=sys.stderr)
    aims: list[Aim] = []
    print(json.dumps({**found, "size": config.size, "antialiasing": config.antialiasing, "aims": aims}))


def figures(environment: SimulatorProcess, suite: str) -> dict[str, float]:
    """Milliseconds of a call, and megabytes of the process afterwards."""
    found = {}
    calls: dict[str, tuple[Callable[[], object], int]] = {
        "first_reset": (lambda: environment.reset(Start(suite, 0, 0, 0)), 1),
        "first_images": (environment.images, 1),
        "reset": (lambda: environment.reset(Start(suite, 0, 1, 0)), 5),
        "step": (lambda: environment.step(ACTION), 60),
        "images": (environment.images, 8),
    }
    for name, (call, times) in calls.items():
        began, used = time.perf_counter(), processor_s(environment.pid)
        for _ in range(times):
            call()
        found[f"{name}_ms"] = round((time.perf_counter() - began) / times * 1e3, 1)
        found[f"{name}_processor_ms"] = round((processor_s(environment.pid) - used) / times * 1e3, 1)
    return found | {"resident_mb": resident_mb(environment.pid)}


def processor_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[_USER_TIME]) + int(fields[_SYSTEM_TIME])) / _TICKS_PER_S


def resident_mb(pid: int) -> float:
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) // 1024


if __name__ == "__main__":
    main()
