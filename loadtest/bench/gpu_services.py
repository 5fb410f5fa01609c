"""Whole services on a device: models in the gateway's process, and an embedded Triton's, also after a death.

Imported by `gpu_report`, late: it needs more of the server's packages than the rest.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import cache
from pathlib import Path

import psutil

from loadtest.bench.on_triton import role
from loadtest.bench.plan import observation
from loadtest.bench.subjects import REPOSITORY
from wavserve.backends.triton.server import why_not
from wavserve.clients.plan_client import PlanClient
from wavserve.core.errors import WavserveError
from wavserve.core.types import Array
from wavserve.system import serve_process

REPAIRED_WITHIN_S = 300.0


def obstacle() -> str | None:
    """Why no Triton can run here."""
    return why_not(REPOSITORY)


@cache
def local(folder: Path, device: str) -> Array:
    """Actions of a seeded request to a service with the models in its own process. Raises what the clients raise."""
    flags = [*_flags(folder, device), "--backend=local"]
    with serve_process.running(folder / f"local-{device}.log", flags) as service, PlanClient(service.grpc) as robot:
        return robot.plan(_request()).actions


def on_triton(folder: Path, device: str) -> dict[str, Array]:
    """Actions of the same request to one on Triton, and to that again once the owner of its feature arena was killed.

    Raises what the clients raise.
    """
    flags = [*_flags(folder, device), "--backend=triton-embedded"]
    with serve_process.running(folder / "triton.log", flags) as service, PlanClient(service.grpc) as robot:
        before = robot.plan(_request()).actions
        below = psutil.Process(service.process.pid).children(recursive=True)
        next(each for each in below if role(each) == "video_dit").kill()
        return {"triton": before, "triton after a death": _repaired(robot, _request())}


def _flags(folder: Path, device: str) -> list[str]:
    flags = [f"--set=backend.device={device}", f"--set=bundle.root={folder / 'bundles'}"]
    return flags if device == "cuda" else [*flags, "--set=backend.compile=off"]  # it is here to compare with


def _request():  # type: ignore[no-untyped-def]
    return replace(observation({}), seed=0)


def _repaired(robot: PlanClient, sent) -> Array:  # type: ignore[no-untyped-def]
    """The first answer after a repair; errors until then are as they should be."""
    until = time.monotonic() + REPAIRED_WITHIN_S
    while True:
        try:
            return robot.plan(sent, timeout_s=REPAIRED_WITHIN_S).actions
        except WavserveError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)
