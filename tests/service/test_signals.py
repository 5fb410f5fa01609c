"""A stop signal to every process of a service at the same time, as from a terminal, systemd or a container's runtime.

The service exits with 0 and leaves no process and no file. Plans under way are answered, or refused as retryable.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from loadtest.processes import alive, below, models_of, triton_of
from tests.service.processes import files_of, tritons_of, until
from tests.service.rig import LONG, REPOSITORY, SECONDS, Server, observation, post, start
from tests.service.test_faults import serving
from wavserve.backends.triton.wheel import find_obstacle
from wavserve.bundle.bundle import Bundle
from wavserve.system import serve_process

PLANS = 3
SOON_S = 20.0
"""Far less than the drain and the repair may take, and ample for a busy machine."""
PATIENT = ("--set", "limits.drain_s=300", "--set", "limits.repair_s=300")

pytestmark = pytest.mark.skipif(
    find_obstacle(REPOSITORY) is not None, reason=f"no real Triton on this machine: {find_obstacle(REPOSITORY)}"
)


def test_plans_under_way_are_answered(tiny: Bundle, tmp_path: Path) -> None:
    """The models work until the plans are made; further signals change nothing."""
    with planning(tiny, tmp_path, SECONDS) as (running, answers):
        for each in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            send_to_all(running.process.pid, each)
            time.sleep(0.1)
    for answer in answers:
        response = answer.result()
        assert response.status_code == 200, response.text
        assert response.json()["receipt"]["iterations_done"] == SECONDS["num_iterations"]


def test_plans_whose_models_end_are_refused_soon(tiny: Bundle, tmp_path: Path) -> None:
    with planning(tiny, tmp_path, LONG) as (running, answers):
        server = triton_of(running.process.pid)
        send_to_all(running.process.pid, signal.SIGTERM)
        server.kill()
        for answer in answers:
            assert answer.result(SOON_S).status_code == 503


def test_a_repair_is_given_up(tiny: Bundle, tmp_path: Path) -> None:
    with planning(tiny, tmp_path, LONG) as (running, answers):
        models_of(running.process.pid)["value_dit"].kill()
        until(lambda: not running.is_ready(), "readyz reports that a model is down")
        send_to_all(running.process.pid, signal.SIGTERM)
        for answer in answers:
            assert answer.result(SOON_S).status_code == 503


def test_a_start_ends(tiny: Bundle, tmp_path: Path) -> None:
    with subprocess.Popen(serving(tiny), cwd=tmp_path, stderr=subprocess.DEVNULL) as starting:
        until(lambda: len(tritons_of(starting.pid)) > 1, "the server and a model have begun to start")
        send_to_all(starting.pid, signal.SIGTERM)
        assert starting.wait(300) == 0
    until(lambda: not tritons_of(starting.pid), "the processes that it started exit")
    assert files_of(starting.pid) == []


@contextlib.contextmanager
def planning(
    tiny: Bundle, folder: Path, options: dict[str, int]
) -> Iterator[tuple[Server, list[Future[httpx.Response]]]]:
    """A service with plans under way. After the block it must end with 0, and leave nothing."""
    running = start(folder, "triton-embedded", "--bundle", str(tiny.folder), *PATIENT)
    with ThreadPoolExecutor(PLANS) as robots:
        try:
            sent = [observation(seed=seed, options=options) for seed in range(PLANS)]
            answers = [robots.submit(post, running, each) for each in sent]
            until(lambda: num_plans(running) == PLANS, "the plans are under way")
            left = below(running.process.pid)
            yield running, answers
            assert running.process.wait(serve_process.END_WITHIN_S) == 0
        finally:
            running.stop()
    assert not any(map(alive, left))
    assert files_of(running.process.pid) == []


def num_plans(running: Server) -> int:
    metrics = httpx.get(f"{running.http}/metrics", timeout=10).text
    return int(float(metrics.partition("\nwavserve_plans_in_flight ")[2].splitlines()[0]))


def send_to_all(service: int, signum: signal.Signals) -> None:
    """Children first: the gateway must not have the time to prepare them."""
    for each in [*reversed(below(service)), psutil.Process(service)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.send_signal(signum)
