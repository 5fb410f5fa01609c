"""A whole robot, with the real robot client over a real gRPC stream to a gateway whose chunks the test decides."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.clients.gateways import Gateway, Stream, gateway
from tests.clients.piper.rig import STOP_FRAME, TARGET_FRAMES, Listener, eventually, executes
from tests.clients.piper.stage import chunk, config, policy, swing
from wavserve.clients.piper import figures
from wavserve.clients.piper.cameras import Synthetic
from wavserve.clients.piper.config import PiperConfig, RtcConfig
from wavserve.clients.piper.mailbox import Moment
from wavserve.clients.piper.phases import Order, Phase
from wavserve.clients.piper.report import html
from wavserve.clients.piper.run import PiperRun, RunOptions
from wavserve.clients.robot_client import RobotClient
from wavserve.core.control import ControlObservation, GoAway, StreamError
from wavserve.core.errors import ContractMismatch, WavserveError
from wavserve.core.tracing import Tracer

HZ = 30
"""of control"""
STEP, UNIT = 1.5 / HZ, 4e-5


def answer(stream: Stream, seen: ControlObservation) -> None:
    moment = Moment(seen.control_step, seen.state, seen.executed_steps, True, 0.0)
    made = chunk(swing(moment, seen.sequence), moment, seen.sequence, stream.epoch, stream.session_id)
    stream.send(replace(made, captured_mono_ns=seen.images[0].captured_mono_ns))


class Robot:
    """A run on the virtual bus, armed and in motion."""

    def __init__(self, robot: PiperConfig, served: Gateway, run: PiperRun, listeners: list[Listener]) -> None:
        self.config, self.served, self.run, self.listeners = robot, served, run, listeners

    def moves(self, at_least: int = 20) -> None:
        executes(self.run.control, at_least)

    def rests(self, ticks: int = 6) -> None:
        def still() -> bool:
            targets = self.listeners[0].targets()
            return len(targets) > ticks and len({each.joints for each in targets[-ticks:]}) == 1

        eventually(still)

    def stood_still_at(self) -> float:
        targets = self.listeners[0].targets()
        return next(each.at_s for each in targets if each.joints == targets[-1].joints)

    def assert_no_jump(self) -> None:
        for listener in self.listeners:
            steps = np.diff(np.array([target.joints for target in listener.targets()]), axis=0)
            assert np.abs(steps).max() <= STEP + UNIT


def robot_for(served: Gateway, folder: Path) -> PiperConfig:
    base = config()
    small = tuple(replace(camera, width=64, height=48) for camera in base.cameras)
    served.policy, served.answer = policy(base), answer
    server = replace(base.server, address=served.address)
    return replace(base, server=server, cameras=small, log=replace(base.log, path=str(folder / "run.jsonl")))


@contextmanager
def moving(folder: Path, **changes: object) -> Iterator[Robot]:
    with gateway() as served:
        robot = replace(robot_for(served, folder), **changes)  # type: ignore[arg-type]
        listeners = [Listener(arm.channel) for arm in robot.arms]
        try:
            with PiperRun(robot, RunOptions(is_virtual=True)) as run:
                checks = run.check()
                assert [check for check in checks if not check.is_ok] == []
                run.start(checks)
                run.control.order(Order.ARM)
                moves = Robot(robot, served, run, listeners)
                moves.moves()
                yield moves
                assert run.failure == ""
        finally:
            for listener in listeners:
                listener.close()


@pytest.fixture
def robot(tmp_path: Path) -> Iterator[Robot]:
    with moving(tmp_path) as running:
        yield running


def test_the_service_sees_pictures_state_and_steps(robot: Robot) -> None:
    robot.moves(80)
    seen = robot.served.stream.observations
    assert {image.camera for image in seen[-1].images} == {"top", "left_wrist", "right_wrist"}
    assert len(seen[-1].state) == 14
    assert seen[-1].control_step > seen[0].control_step
    assert seen[-1].executed_steps > 0
    assert robot.served.stream.hello.robot_id == "piper-1"
    robot.assert_no_jump()


def test_a_service_that_is_killed_mid_motion_holds_the_robot_which_goes_on_after_its_restart(robot: Robot) -> None:
    robot.moves(30)
    robot.served.stop()
    killed = time.monotonic()
    robot.rests()
    assert robot.listeners[0].num_between(killed, robot.stood_still_at()) <= 0.5 * HZ
    assert robot.run.control.status.hold == "link lost"
    held = robot.listeners[0].targets()[-1]
    eventually(lambda: robot.listeners[0].targets()[-1].at_s > held.at_s + 0.5)
    assert robot.listeners[0].targets()[-1].joints == held.joints, "the same target is sent again and again"
    robot.served.restart()
    robot.moves(30)
    robot.assert_no_jump()
    assert all(listener.of(STOP_FRAME) == [] for listener in robot.listeners)


def test_a_link_that_falls_silent_holds_within_its_timeout(robot: Robot) -> None:
    robot.moves(30)
    robot.served.stream.mute = True
    before = robot.run.control.counts.ticks
    eventually(lambda: robot.run.control.status.hold == "link lost")
    assert robot.run.control.counts.ticks - before <= (0.5 + 0.4) * HZ
    robot.moves(20)
    robot.assert_no_jump()


def test_a_stream_that_is_cut_is_opened_again_with_a_new_epoch(robot: Robot) -> None:
    for _ in range(3):
        before = robot.served.stream
        before.end()
        eventually(lambda: robot.served.stream is not before)  # noqa: B023
        assert robot.served.stream.epoch > before.epoch
        robot.moves(20)
    robot.assert_no_jump()


def test_a_gateway_that_drains_is_left_without_a_jump(robot: Robot) -> None:
    robot.moves(30)
    robot.served.stream.send(GoAway(1000, "drain"))
    robot.served.stream.end()
    robot.served.stop()
    robot.rests()
    robot.served.restart()
    robot.moves(30)
    robot.assert_no_jump()


def test_a_camera_that_freezes_holds_the_robot_until_it_gives_pictures_again(robot: Robot) -> None:
    robot.moves(30)
    frozen = robot.run.cameras[1]
    frozen.close()
    eventually(lambda: robot.run.control.status.hold.startswith("camera left_wrist: no picture for"))
    robot.rests()
    seen = len(robot.served.stream.observations)
    robot.rests(ticks=15)
    assert len(robot.served.stream.observations) == seen, "a blind robot asks for nothing"
    feeding = Synthetic(frozen.config)
    executed = robot.run.control.counts.executed

    def goes_on() -> bool:
        picture = feeding.read()
        assert picture is not None
        frozen.take(picture)
        return robot.run.control.counts.executed > executed + 20

    eventually(goes_on)
    robot.assert_no_jump()


def test_another_policy_after_a_restart_never_moves_the_robot(robot: Robot) -> None:
    robot.moves(20)
    robot.served.stop()
    robot.served.policy = replace(robot.served.policy, digest="e" * 64)
    robot.served.restart()
    eventually(lambda: "connects no more" in robot.run.control.status.hold)
    executed = robot.run.control.counts.executed
    robot.rests()
    assert robot.run.control.counts.executed == executed


def test_a_second_robot_with_the_same_id_is_refused_and_the_first_one_goes_on(robot: Robot, tmp_path: Path) -> None:
    robot.served.refusal = StreamError(name="robot-busy", message="piper-1 has a living stream", fatal=True)
    from wavserve.clients.piper.link import description, options

    with RobotClient(
        robot.config.server.address, description(robot.config), options(robot.config, "", Tracer())
    ) as second:
        with pytest.raises(WavserveError, match="living stream"):
            second.connect(timeout_s=2.0)
        robot.moves(30)
    robot.assert_no_jump()


def test_errors_of_observations_pause_the_robot_and_it_goes_on(robot: Robot) -> None:
    def refuse(stream: Stream, seen: ControlObservation) -> None:
        stream.send(StreamError(name="overloaded", message="busy", sequence=seen.sequence, retryable=True))

    robot.served.answer = refuse
    robot.rests()
    assert robot.run.control.status.phase is Phase.READY
    robot.served.answer = answer
    robot.moves(30)
    robot.assert_no_jump()


def test_a_service_that_sends_nan_is_left_and_the_robot_holds_until_it_sends_numbers(robot: Robot) -> None:
    def broken(stream: Stream, seen: ControlObservation) -> None:
        moment = Moment(seen.control_step, seen.state, seen.executed_steps, True, 0.0)
        actions = swing(moment, 0)
        actions[20] = np.nan
        stream.send(chunk(actions, moment, seen.sequence, stream.epoch, stream.session_id))

    robot.served.answer, num_streams = broken, len(robot.served.streams)
    eventually(lambda: len(robot.served.streams) > num_streams)
    robot.rests()
    robot.served.answer = answer
    robot.moves(20)
    robot.assert_no_jump()


def continues(stream: Stream, seen: ControlObservation) -> None:
    """A chunk that begins with what the robot executes meanwhile, as real-time chunking makes it."""
    moment = Moment(seen.control_step, seen.state, seen.executed_steps, True, 0.0)
    actions = swing(moment, seen.sequence).astype(np.float32)
    delay = 0 if seen.rtc is None else seen.rtc.inference_delay
    if seen.rtc is not None:
        actions[:delay] = seen.rtc.prev_chunk_left_over[:delay]
    made = chunk(actions, moment, seen.sequence, stream.epoch, stream.session_id)
    times = {"captured_mono_ns": seen.images[0].captured_mono_ns, "frozen_prefix_steps": delay}
    stream.send(replace(made, **times))  # type: ignore[arg-type]


def test_with_real_time_chunking_each_observation_has_the_actions_that_the_robot_goes_on_to_execute(
    tmp_path: Path,
) -> None:
    with moving(tmp_path, rtc=RtcConfig("rtc_guided", execution_horizon=12)) as robot:
        robot.served.answer = continues
        robot.moves(150)
        robot.assert_no_jump()
    asked = [each for each in robot.served.stream.observations if each.rtc is not None]
    assert {(each.rtc.mode, each.rtc.execution_horizon) for each in asked if each.rtc} == {("rtc_guided", 12)}
    run = figures.read(tmp_path / "run.jsonl")
    executed = {tick["step"] - 1: tick["command"] for tick in run.of("tick") if tick["source"] != "hold"}
    compared = 0
    for each in asked:
        assert each.rtc is not None
        left_over, delay = each.rtc.prev_chunk_left_over, each.rtc.inference_delay
        assert delay <= min(len(left_over), each.executed_steps)
        for step in range(delay):
            if each.control_step + step in executed:
                assert executed[each.control_step + step] == pytest.approx(left_over[step].tolist(), abs=1e-5)
                compared += 1
    assert compared > 0
    told = dict(figures.rows(figures.figures(run)))
    assert told["real-time chunking"].startswith("rtc_guided: ")
    assert figures.figures(run).num_continued > 0


def test_without_real_time_chunking_no_observation_has_a_left_over(robot: Robot) -> None:
    robot.moves(60)
    for each in robot.served.stream.observations:
        assert each.rtc is None or (each.rtc.mode is None and not len(each.rtc.prev_chunk_left_over))


def test_a_run_leaves_a_log_whose_figures_and_page_tell_what_happened(tmp_path: Path) -> None:
    with moving(tmp_path) as robot:
        robot.moves(60)
        robot.run.control.emergency_stop("key")
        eventually(lambda: robot.run.control.status.phase is Phase.STOPPED)
        stop = robot.listeners[0].of(STOP_FRAME)[0]
    assert [each for each in robot.listeners[0].of(*TARGET_FRAMES) if each.at_s > stop.at_s] == []
    run = figures.read(tmp_path / "run.jsonl")
    told = figures.figures(run)
    assert told.num_executed >= 80
    assert told.num_like_chunk >= 0.9 * told.num_executed
    assert (told.num_stops, told.num_faults, told.num_lost_lines) == (1, 0, 0)
    assert told.largest_step <= 1 + 1e-3
    page = html(run)
    assert "emergency stop" in page
    assert page.count("<svg") == 16
    assert "http" not in page.replace("http://www.w3.org", "")


def test_a_red_check_starts_nothing(tmp_path: Path) -> None:
    with gateway() as served:
        robot = robot_for(served, tmp_path)
        served.policy = replace(served.policy, untrained=True)
        listener = Listener(robot.arms[0].channel)
        with PiperRun(robot, RunOptions(is_virtual=True)) as run:
            checks = run.check()
            assert [check.name for check in checks if not check.is_ok] == ["training"]
            with pytest.raises(ValueError, match="red"):
                run.start(checks)
        assert listener.frames == []
        listener.close()
        assert served.streams == []


def test_a_policy_that_does_not_fit_is_a_red_line_and_the_client_refuses_it_too(tmp_path: Path) -> None:
    from wavserve.clients.piper.link import description, options

    with gateway() as served:
        robot = robot_for(served, tmp_path)
        served.policy = replace(served.policy, embodiment="aloha")
        with (
            RobotClient(served.address, description(robot), options(robot, "", Tracer())) as client,
            pytest.raises(ContractMismatch, match="aloha"),
        ):
            client.connect()


def test_without_a_service_the_table_has_a_red_line(tmp_path: Path) -> None:
    with gateway() as served:
        robot = robot_for(served, tmp_path)
    with PiperRun(robot, RunOptions(is_virtual=True)) as run:
        assert [check.subject for check in run.check() if not check.is_ok] == ["service"]
