"""Compiled blocks in the models' processes under a real Triton."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from loadtest.processes import models_of
from tests.service.processes import until
from tests.service.rig import REPOSITORY, observation, start
from wavserve.backends.triton.wheel import find_obstacle
from wavserve.bundle.bundle import Bundle
from wavserve.clients.plan_client import PlanClient
from wavserve.core.errors import NotReady

OPTIONS = {"num_iterations": 1, "num_video_samples": 4, "num_value_samples": 2}
ROOT = Path(__file__).parents[2]
CHILD = (sys.executable, "-m", "tests.models.fast.compiled_child")
DITS = ("video_dit", "value_dit", "action_dit")


@pytest.mark.skipif(
    find_obstacle(REPOSITORY) is not None, reason=f"no real Triton on this machine: {find_obstacle(REPOSITORY)}"
)
def test_models_that_triton_hosts_compile_and_compute_the_same(tmp_path: Path, tiny: Bundle) -> None:
    """A model that is killed is reloaded, and compiled again from the cache."""
    if not compiles_here():
        pytest.skip("models do not compile in a plain process either")
    sent = observation(options=OPTIONS)
    plain = start(tmp_path, "local", "--bundle", str(tiny.folder))
    with PlanClient(plain.grpc) as robot:
        expected = robot.plan(sent).actions
    assert plain.stop() == 0
    service = start(tmp_path, "triton-embedded", "--bundle", str(tiny.folder), "--set", "backend.compile=auto")
    try:
        log = triton_log(service.log)
        assert [log.read_text().count(f"{name}: compiled in") for name in DITS] == [1, 1, 1]
        with PlanClient(service.grpc) as robot:
            np.testing.assert_allclose(robot.plan(sent).actions, expected, atol=1e-5)
            models_of(service.process.pid)["value_dit"].kill()
            until(lambda: log.read_text().count("value_dit: compiled in") == 2, "the model is reloaded")
            until(lambda: answered(robot, sent, expected), "plans are answered again")
    finally:
        assert service.stop() == 0


def compiles_here() -> bool:
    """Whether a model compiles in a plain process. If it does, it must compile in a Triton's process as well."""
    done = subprocess.run([*CHILD, "value"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=300)
    return "runs uncompiled" not in done.stderr


def answered(robot: PlanClient, sent, expected: np.ndarray) -> bool:  # type: ignore[no-untyped-def]
    """Whether the service answers; its answer must be the expected one."""
    try:
        actions = robot.plan(sent).actions
    except NotReady:
        return False
    np.testing.assert_allclose(actions, expected, atol=1e-5)
    return True


def triton_log(gateway: Path) -> Path:
    """The path of the server's log, from the gateway's log."""
    return Path(gateway.read_text().partition("its log is ")[2].splitlines()[0].rstrip('"}'))
