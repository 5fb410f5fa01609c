"""`wavserve piper` against the real service: two simulated arms move while the service is killed and drained."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from tests.clients.piper.rig import STOP_FRAME, Listener, eventually, executes
from tests.clients.piper.stage import config
from wavserve.bundle.bundle import Bundle
from wavserve.clients.piper import figures
from wavserve.clients.piper.config import PiperConfig, PolicyConfig, RtcConfig
from wavserve.clients.piper.control import Control
from wavserve.clients.piper.phases import Order
from wavserve.clients.piper.run import PiperRun, RunOptions
from wavserve.system import serve_process
from wavserve.system.processes import free_ports
from wavserve.system.serve_process import SERVE, Child

STEP, UNIT = 1.5 / 30, 4e-5
QUICK = {"mode": "off"}
"""no planning, for a machine that is busy with other tests"""


@dataclass
class Service:
    """A real service on a port that stays the same over its restarts."""

    folder: Path
    bundles: Path
    grpc: int
    child: Child | None = None

    def start(self) -> None:
        flags = ["--preset=tiny-piper", "--backend=local", "--set=backend.compile=off", f"--grpc-port={self.grpc}"]
        flags.append(f"--set=bundle.root={self.bundles}")
        self.child = serve_process.start(self.folder / "server.log", flags, command=SERVE)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.grpc}"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, tiny_piper: Bundle) -> Iterator[Service]:
    [port] = free_ports(1)
    running = Service(tmp_path_factory.mktemp("service"), tiny_piper.folder.parent, port)
    running.start()
    yield running
    if running.child is not None:
        running.child.stop()


@dataclass
class Robot:
    config: PiperConfig
    control: Control
    listeners: list[Listener]

    def moves(self, at_least: int) -> None:
        executes(self.control, at_least)

    def assert_no_jump(self) -> None:
        for listener in self.listeners:
            steps = np.diff(np.array([target.joints for target in listener.targets()]), axis=0)
            assert np.abs(steps).max() <= STEP + UNIT
            assert listener.of(STOP_FRAME) == []


@contextmanager
def moving(service: Service, folder: Path, rtc: RtcConfig | None = None) -> Iterator[Robot]:
    base = config()
    robot = replace(
        base,
        server=replace(base.server, address=service.address, deadline_ms=20_000),
        policy=PolicyConfig("tiny-piper", QUICK),
        rtc=rtc or RtcConfig(),
        log=replace(base.log, path=str(folder / "run.jsonl")),
    )
    listeners = [Listener(arm.channel) for arm in robot.arms]
    try:
        with PiperRun(robot, RunOptions(is_virtual=True, allow_untrained=True)) as run:
            checks = run.check()
            assert [check for check in checks if not check.is_ok] == []
            run.start(checks)
            run.control.order(Order.ARM)
            yield Robot(robot, run.control, listeners)
            assert run.failure == ""
    finally:
        for listener in listeners:
            listener.close()


@pytest.mark.slow
def test_two_arms_move_with_the_real_policy(service: Service, tmp_path: Path) -> None:
    with moving(service, tmp_path) as robot:
        robot.moves(150)
        robot.assert_no_jump()
    told = figures.figures(figures.read(tmp_path / "run.jsonl"))
    assert told.num_executed >= 150
    assert told.num_like_chunk >= 0.99 * told.num_executed
    assert told.num_clamped <= 0.01 * told.num_executed
    assert (told.num_faults, told.num_stops) == (0, 0)


@pytest.mark.slow
def test_guided_chunks_continue_the_ones_before(service: Service, tmp_path: Path) -> None:
    with moving(service, tmp_path, RtcConfig("rtc_guided")) as robot:
        robot.moves(150)
        robot.assert_no_jump()
    run = figures.read(tmp_path / "run.jsonl")
    told = figures.figures(run)
    assert (told.rtc_mode, told.num_faults, told.num_stops) == ("rtc_guided", 0, 0)
    assert told.num_continued > 0
    assert max(chunk["frozen"] for chunk in run.of("chunk")) > 0
    assert run.of("dropped") == []
    assert [line for line in run.of("link") if "error" in line] == []


@pytest.mark.slow
def test_a_service_that_is_killed_holds_the_robot_which_goes_on_after_the_restart(
    service: Service, tmp_path: Path
) -> None:
    with moving(service, tmp_path) as robot:
        robot.moves(40)
        assert service.child is not None
        service.child.process.kill()
        service.child.process.wait()
        eventually(lambda: robot.control.status.hold == "link lost")
        last = robot.listeners[0].targets()[-1]
        eventually(lambda: robot.listeners[0].targets()[-1].at_s > last.at_s + 1.0)
        held = robot.listeners[0].targets()
        assert len({each.joints for each in held[-10:]}) == 1, "one target, again and again"
        service.start()
        robot.moves(40)
        robot.assert_no_jump()


@pytest.mark.slow
def test_a_service_that_drains_lets_the_robot_come_to_rest_and_go_on_at_its_successor(
    service: Service, tmp_path: Path
) -> None:
    with moving(service, tmp_path) as robot:
        robot.moves(40)
        assert service.child is not None
        assert service.child.stop() == 0, "it drains and ends in order"
        eventually(lambda: robot.control.status.hold == "link lost")
        service.start()
        robot.moves(40)
        robot.assert_no_jump()


@pytest.mark.slow
def test_a_second_robot_with_the_same_id_is_refused_while_the_first_one_moves(service: Service, tmp_path: Path) -> None:
    with moving(service, tmp_path) as robot:
        robot.moves(20)
        file = tmp_path / "second.toml"
        example = (Path(__file__).parents[2] / "examples" / "piper.toml").read_text(encoding="utf-8")
        file.write_text(example.replace("min_feedback_hz = 150.0", "min_feedback_hz = 20.0"), encoding="utf-8")
        flags = [f"--config={file}", "--bus=virtual", "--allow-untrained", "--armed", "--duration=5"]
        flags += [f"--server={service.address}", f"--log={tmp_path / 'second.jsonl'}"]
        command = [sys.executable, "-m", "wavserve.cli", "piper", *flags]
        second = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert second.returncode == 1
        assert "another living stream has this robot id" in second.stderr
        robot.moves(20)
        robot.assert_no_jump()
