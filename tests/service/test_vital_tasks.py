"""A task without which the service is of no use dies: plans are answered, and the process exits non-zero."""

from __future__ import annotations

import concurrent.futures
import signal
import sys
from pathlib import Path

import httpx
import pytest

from tests.service.processes import until
from tests.service.rig import LONG, observation
from wavserve.bundle.bundle import Bundle
from wavserve.clients.plan_client import PlanClient
from wavserve.core.errors import WavserveError
from wavserve.system import serve_process


@pytest.mark.parametrize("victim", ["batcher", "the HTTP server", "the gRPC server"])
def test_the_death_of_a_vital_task_answers_every_plan_and_ends_the_process(
    tmp_path: Path, tiny: Bundle, victim: str
) -> None:
    command = (sys.executable, "-m", "tests.service.sabotaged_service", "--victim", victim)
    flags = ["--backend", "local", "--set", "backend.compile=off", "--bundle", str(tiny.folder)]
    service = serve_process.start(tmp_path / "server.log", flags, command=command)
    try:
        with PlanClient(service.grpc) as client, concurrent.futures.ThreadPoolExecutor(2) as pool:
            robots = [pool.submit(client.plan, observation(seed=seed, options=LONG), timeout_s=60) for seed in range(2)]
            until(lambda: "wavserve_plans_in_flight 2.0" in metrics(service), "both plans are under way")
            service.process.send_signal(signal.SIGUSR1)
            errors = [robot.exception(timeout=300) for robot in robots]
        assert service.process.wait(300) == 1
    finally:
        service.stop()
    assert all(isinstance(error, WavserveError) and error.retryable for error in errors), errors
    assert f"{victim} died" in service.log.read_text()


def metrics(service: serve_process.Child) -> str:
    return httpx.get(f"{service.http}/metrics", timeout=10, trust_env=False).text
