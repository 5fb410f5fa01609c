"""Real processes die, hang and run out of memory: every robot gets a right answer, and nothing is left behind.

Eight robots plan all the time on a service with an embedded Triton. Every answer is the one that the robot's seed gives
without faults, or a typed, retryable error.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
import torch

from loadtest.processes import alive, below, command_of, models_of, triton_of
from tests.service.processes import files_of, tritons_of, until
from tests.service.rig import REPOSITORY, Server, observation, start
from wavserve.app.triton_fleet import MODELS_AT_ONCE_ON_CPU
from wavserve.backends.triton.wheel import find_obstacle
from wavserve.bundle.bundle import Bundle
from wavserve.clients.plan_client import PlanClient
from wavserve.core.errors import WavserveError
from wavserve.core.verbs import MODELS
from wavserve.system.processes import NICENESS

ROBOTS = 8
OPTIONS = {"num_iterations": 1, "num_video_samples": 4, "num_value_samples": 2, "value_elite_fraction": 0.5}
NUM_FILES = len(MODELS) + 2
"""Files of a service: a shared memory region for the calls of each model, the arena, and a folder with the log."""
PLAN_S = 180.0
"""Of a robot's patience: more than the service lets a plan wait for a repair (limits.repair_s), on a busy machine."""
HANG_S = 10.0
"""Long enough that a model on a busy machine does not count as hanging."""

pytestmark = pytest.mark.skipif(
    find_obstacle(REPOSITORY) is not None, reason=f"no real Triton on this machine: {find_obstacle(REPOSITORY)}"
)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, tiny: Bundle) -> Iterator[Server]:
    """One service for all tests that it survives. At its end it must leave no process and no file."""
    running = started(tmp_path_factory.mktemp("service"), tiny)
    yield running
    left = below(running.process.pid)
    assert running.stop() == 0
    until(lambda: not any(map(alive, left)), "its processes exit")
    assert files_of(running.process.pid) == []


def started(folder: Path, tiny: Bundle, *flags: str) -> Server:
    return start(folder, "triton-embedded", "--bundle", str(tiny.folder), "--set", f"triton.hang_s={HANG_S}", *flags)


@dataclass
class Robots:
    """Robots that plan until `stop` is set, and the answers and errors that they got."""

    target: str
    num: int = ROBOTS
    stop: threading.Event = field(default_factory=threading.Event)
    answers: list[tuple[int, np.ndarray]] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)

    def run(self, robot: int) -> None:
        with PlanClient(self.target) as client:
            while not self.stop.is_set():
                try:
                    self.answers.append((robot, client.plan(ask(robot), timeout_s=PLAN_S).actions))
                except Exception as error:  # noqa: BLE001 - every error is checked at the end
                    self.errors.append(error)
                    self.stop.wait(0.05)

    def more(self) -> None:
        """Waits until every robot has got one more answer."""
        counts = dict.fromkeys(range(self.num), 0)
        before = len(self.answers)

        def all_again() -> bool:
            for robot, _ in self.answers[before + sum(counts.values()) :]:
                counts[robot] += 1
            return all(counts.values())

        until(all_again, "an answer for every robot")


def ask(robot: int):  # type: ignore[no-untyped-def]
    return observation(robot % 6, seed=robot, options=OPTIONS)


@contextlib.contextmanager
def robots_planning(server: Server, num_robots: int = ROBOTS) -> Iterator[Robots]:
    """Robots that plan meanwhile. Every answer must equal the robot's solo answer; every error must be retryable."""
    with PlanClient(server.grpc) as client:
        solo = [client.plan(ask(robot)).actions for robot in range(num_robots)]
    robots = Robots(server.grpc, num_robots)
    threads = [threading.Thread(target=robots.run, args=(robot,)) for robot in range(num_robots)]
    for thread in threads:
        thread.start()
    try:
        robots.more()
        yield robots
    finally:
        robots.stop.set()
        for thread in threads:
            thread.join(300)
    assert not any(thread.is_alive() for thread in threads), "a robot got no answer"
    assert robots.answers
    for robot, actions in robots.answers:
        np.testing.assert_allclose(actions, solo[robot], atol=1e-5)
    for error in robots.errors:
        assert isinstance(error, WavserveError), error
        assert error.retryable, error


def ready(server: Server) -> bool:
    return httpx.get(f"{server.http}/readyz", timeout=10).is_success


@pytest.mark.parametrize("model", MODELS)
def test_a_killed_model_is_reloaded(service: Server, model: str) -> None:
    before = models_of(service.process.pid)
    with robots_planning(service) as robots:
        before[model].kill()
        until(lambda: not ready(service), "readyz reports that a model is down")
        until(lambda: ready(service), "readyz reports that all models are up")
        robots.more()
    after = models_of(service.process.pid)
    assert {name for name in MODELS if after[name] != before[name]} == {model}
    until(lambda: len(files_of(service.process.pid)) == NUM_FILES, "the dead process's shared memory is removed")


@pytest.mark.parametrize(
    "process_of", [lambda pid: models_of(pid)["value_dit"], triton_of], ids=["a model", "the server"]
)
def test_a_process_that_stands_still_is_replaced(service: Server, process_of: Callable[[int], psutil.Process]) -> None:
    before = process_of(service.process.pid)
    with robots_planning(service) as robots:
        before.suspend()
        until(lambda: not ready(service), "readyz reports that a model does not answer")
        until(lambda: ready(service), "readyz reports that all models are up")
        robots.more()
    assert not alive(before)


def test_a_killed_server_is_restarted(service: Server) -> None:
    before = triton_of(service.process.pid)
    with robots_planning(service) as robots:
        before.kill()
        until(lambda: not ready(service), "readyz reports that the models are down")
        until(lambda: ready(service), "readyz reports that all models are up")
        robots.more()
    assert triton_of(service.process.pid) != before
    assert len(files_of(service.process.pid)) == NUM_FILES


def test_a_killed_gateway_leaves_no_process_and_no_file(service: Server, tiny: Bundle, tmp_path: Path) -> None:
    """Its Triton exits and its files are removed. That does not affect a living neighbour."""
    neighbours = files_of(service.process.pid)
    assert len(neighbours) > len(MODELS)
    victim = started(tmp_path, tiny)
    with robots_planning(service, num_robots=2) as robots:
        pid = kill_while_planning(victim)
        assert files_of(pid) == []
        assert set(neighbours) <= set(files_of(service.process.pid))
        robots.more()
    assert ready(service)


def kill_while_planning(victim: Server) -> int:
    """Kills a gateway with plans in flight, and waits until its Triton and models have exited; returns its pid."""
    left = below(victim.process.pid)
    doomed = Robots(victim.grpc)
    robot = threading.Thread(target=doomed.run, args=(0,))
    robot.start()
    until(lambda: len(doomed.answers) > 1, "plans in flight")
    victim.process.kill()
    victim.process.wait()
    doomed.stop.set()
    robot.join(300)
    assert not robot.is_alive(), "a robot got no answer"
    until(lambda: not any(map(alive, left)), "its Triton and the models exit")
    until(lambda: files_of(victim.process.pid) == [], "their files are removed")
    return victim.process.pid


@pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU one model computes at a time")
def test_on_a_cpu_models_compute_side_by_side(service: Server) -> None:
    """The rate limiter must let as many calls run as the gateway sends."""
    assert f"--rate-limit-resource=gpu:{MODELS_AT_ONCE_ON_CPU}" in command_of(triton_of(service.process.pid))


@pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU models and gateway do not share cores")
def test_models_have_a_lower_priority_than_the_gateway(service: Server) -> None:
    gateway = psutil.Process(service.process.pid).nice()
    models = models_of(service.process.pid)
    assert {each.nice() for each in models.values()} == {min(19, gateway + NICENESS)}


def test_a_start_that_is_interrupted_leaves_nothing(tiny: Bundle, tmp_path: Path) -> None:
    with subprocess.Popen(serving(tiny), cwd=tmp_path, stderr=subprocess.DEVNULL) as starting:
        until(lambda: len(tritons_of(starting.pid)) > 1, "the server and a model have begun to start")
        starting.terminate()
        assert starting.wait(300) == 0
    until(lambda: not tritons_of(starting.pid), "the processes that it started exit")
    assert files_of(starting.pid) == []


def test_the_next_start_ends_what_a_gateway_and_its_reaper_left(service: Server, tiny: Bundle, tmp_path: Path) -> None:
    """Both are killed at once while a model's process is stopped, so no process is left to clean up.

    Some processes may outlive that; none may outlive the next start. It does not affect a living neighbour.
    """
    for name in ("victim", "next"):
        (tmp_path / name).mkdir()
    victim = started(tmp_path / "victim", tiny)
    left = below(victim.process.pid)
    [reaper] = [each for each in left if "reaper.py" in command_of(each)]
    hanging, server = models_of(victim.process.pid)["value_dit"], triton_of(victim.process.pid)
    for each in (hanging, reaper):
        each.suspend()
    victim.process.kill()
    reaper.kill()
    victim.process.wait()
    until(lambda: not alive(server), "the server exits with its reaper")
    assert files_of(victim.process.pid)
    neighbours = files_of(service.process.pid)
    following = started(tmp_path / "next", tiny)
    try:
        assert not any(map(alive, left))
        assert files_of(victim.process.pid) == []
        assert set(neighbours) <= set(files_of(service.process.pid))
        with PlanClient(service.grpc) as neighbour:
            neighbour.plan(ask(0))
    finally:
        assert following.stop() == 0


@pytest.mark.parametrize(
    ("setting", "message"),
    [("arena.num_slots=1000000", "arena.num_slots: expected"), ("triton.shm_bytes=100000000000", "triton.shm_bytes: ")],
)
def test_too_little_shared_memory_fails_the_start(tiny: Bundle, tmp_path: Path, setting: str, message: str) -> None:
    (tmp_path / "torch.py").write_text("raise RuntimeError('modules must not be imported from the working directory')")
    with subprocess.Popen(
        serving(tiny, "--set", setting), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    ) as failing:
        _, log = failing.communicate(timeout=300)
    assert failing.returncode == 1
    assert message in log
    until(lambda: not tritons_of(failing.pid), "the processes that it started exit")
    assert "MB" in log
    assert "/dev/shm" in log
    assert "Traceback" not in log


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting another /dev/shm needs root")
@pytest.mark.parametrize("size", ["8m", "24m"])
def test_a_small_shared_memory_fails_the_start(tiny: Bundle, tmp_path: Path, size: str) -> None:
    """A container without --shm-size has so little."""
    mounted = f'mount -t tmpfs -o size={size} tmpfs /dev/shm && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", mounted, "sh", *serving(tiny)]
    failed = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path, check=False)
    assert failed.returncode == 1
    assert "shared memory (containers: --shm-size)" in failed.stderr
    assert "Traceback" not in failed.stderr


def serving(tiny: Bundle, *flags: str) -> list[str]:
    own = ["--backend", "triton-embedded", "--bundle", str(tiny.folder), "--http-port", "0", "--grpc-port", "0"]
    own += ["--set", "backend.compile=off"]
    return [sys.executable, "-m", "wavserve.cli", "serve", *own, *flags]
