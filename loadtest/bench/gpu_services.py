"""Actions of whole services on a device: with the models in the gateway's process, and on an embedded Triton.

This is a separate module because it needs more of the server's packages than the rest of the GPU report.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import cache
from pathlib import Path

import psutil

from loadtest.bench.bare_planner import REPOSITORY
from loadtest.bench.on_triton import role
from loadtest.bench.plan import observation
from wavserve.backends.triton.wheel import find_obstacle
from wavserve.clients.plan_client import PlanClient
from wavserve.core.errors import WavserveError
from wavserve.core.messages import Observation
from wavserve.core.types import Array
from wavserve.system import serve_process

REPAIR_TIMEOUT_S = 300.0


def obstacle() -> str | None:
    """Why no Triton can run on this machine; None when it can."""
    return find_obstacle(REPOSITORY)


@cache
def local(folder: Path, device: str) -> Array:
    """Actions of a seeded request to a service with the models in its own process. Raises the client's errors."""
    flags = [*_flags(folder, device), "--backend=local"]
    with serve_process.running(folder / f"local-{device}.log", flags) as service, PlanClient(service.grpc) as robot:
        return robot.plan(_request()).actions


def on_triton(folder: Path, device: str) -> dict[str, Array]:
    """Actions of the same request to a service on Triton, before and after the arena owner's process is killed.

    Raises the client's errors.
    """
    flags = [*_flags(folder, device), "--backend=triton-embedded"]
    with serve_process.running(folder / "triton.log", flags) as service, PlanClient(service.grpc) as robot:
        before = robot.plan(_request()).actions
        children = psutil.Process(service.process.pid).children(recursive=True)
        next(each for each in children if role(each) == "video_dit").kill()
        return {"triton": before, "triton after process exit": _repaired(robot, _request())}


def _flags(folder: Path, device: str) -> list[str]:
    flags = [f"--set=backend.device={device}", "--preset=tiny", f"--set=bundle.root={folder / 'bundles'}"]
    return flags if device == "cuda" else [*flags, "--set=backend.compile=off"]  # the CPU is only the reference


def _request() -> Observation:
    return replace(observation({}), seed=0)


def _repaired(robot: PlanClient, sent: Observation) -> Array:
    """Actions of the first answer after the repair. Errors before it are expected."""
    until = time.monotonic() + REPAIR_TIMEOUT_S
    while True:
        try:
            return robot.plan(sent, timeout_s=REPAIR_TIMEOUT_S).actions
        except WavserveError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)
