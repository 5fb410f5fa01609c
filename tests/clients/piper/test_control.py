"""The control of two arms in real time, judged by the frames that reached the bus."""

from __future__ import annotations

import itertools
import json
import math
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.clients.piper.rig import ENABLE_FRAME, STOP_FRAME, TARGET_FRAMES, eventually
from tests.clients.piper.stage import HORIZON, Stage, chunk, config, stage, swing
from wavserve.clients.piper.limits import STATUS_EMERGENCY_STOP
from wavserve.clients.piper.mailbox import Arrived, Moment
from wavserve.clients.piper.phases import Order, Phase
from wavserve.clients.piper.simulated import REST_POSE
from wavserve.core.control import HoldReason
from wavserve.core.messages import ActionChunk
from wavserve.core.types import Array

STEP = 1.5 / 30
"""rad: the largest step of a command"""
SLOW = 0.2 * STEP
HZ = 30
"""of control"""
STALL_S = 2.0
UNIT = 4e-5
"""rad: rounding of two targets to thousandths of a degree"""


@pytest.fixture
def robot(tmp_path: Path) -> Iterator[Stage]:
    with stage(tmp_path) as running:
        yield running


def assert_no_jump(robot: Stage, most: float = STEP) -> None:
    for arm in range(2):
        steps = robot.steps(arm)
        assert len(steps) > 10
        assert np.abs(steps).max() <= most + UNIT


def lines(robot: Stage, kind: str) -> list[dict[str, object]]:
    read = [json.loads(line) for line in robot.log_file.read_text(encoding="utf-8").splitlines()]
    return [line for line in read if line["kind"] == kind]


def test_nothing_is_sent_before_the_operator_arms_the_robot(robot: Stage) -> None:
    eventually(lambda: robot.control.counts.ticks > 10)
    assert robot.phase is Phase.DISARMED
    assert [listener.frames for listener in robot.listeners] == [[], []]
    robot.arm()
    eventually(lambda: robot.simulated[0].is_enabled and robot.simulated[1].is_enabled)


def test_the_first_target_is_the_measured_pose(robot: Stage) -> None:
    robot.link.answers = False
    robot.arm()
    eventually(lambda: len(robot.listeners[1].targets()) > 5)
    for listener in robot.listeners:
        assert listener.targets()[0].joints == pytest.approx(REST_POSE[:6], abs=2e-5)
        assert len({each.joints for each in listener.targets()}) == 1


def test_chunks_are_played_without_a_jump(robot: Stage) -> None:
    robot.arm()
    robot.moves(220)
    assert_no_jump(robot)
    largest = np.abs(robot.steps(0)[-80:]).max()
    # A pause, on a machine that is too busy for a chunk in time, is made up for in a blend.
    assert largest <= 0.02 + 2 * UNIT or robot.control.counts.pauses, "seams of chunks that agree cannot be seen"
    moved = max(target.joints[0] for target in robot.listeners[0].targets())
    assert moved > REST_POSE[0] + 0.3


def test_a_far_first_command_is_approached_slowly_and_then_played_from_a_new_chunk(robot: Stage) -> None:
    goal = REST_POSE[0] + 0.4

    def far(moment: Moment, sequence: int) -> Array:
        state = np.array(moment.state)
        actions = np.repeat(state[None], HORIZON, axis=0)
        actions[:, 0] = goal
        return actions

    robot.link.motion = far
    robot.arm()
    robot.moves(20)
    steps = np.abs(robot.steps(0)[:, 0])
    assert steps.max() <= SLOW + UNIT
    assert np.abs(np.diff(steps)).max() <= SLOW / 9 + 2 * UNIT, "the speed rises and falls evenly"
    assert robot.listeners[0].targets()[-1].joints[0] == pytest.approx(goal, abs=1e-4)


def test_a_wild_chunk_is_limited_step_by_step_and_then_the_robot_holds(robot: Stage) -> None:
    """Every action is far from the one before: the client's limits hold, and after 30 clamped steps the robot does."""

    def wild(moment: Moment, sequence: int) -> Array:
        state = np.array(moment.state)
        actions = np.repeat(state[None], HORIZON, axis=0)
        actions[5:, :3] += np.arange(1, HORIZON - 4)[:, None] * 0.5
        return actions

    robot.link.motion = wild
    robot.arm()
    eventually(lambda: robot.control.status.hold.startswith("limit"))
    robot.rests()
    assert_no_jump(robot)
    assert robot.control.counts.clamped >= 30
    assert robot.phase is Phase.READY
    robot.link.motion = swing
    time.sleep(0.3)
    assert robot.control.status.hold.startswith("limit"), "until the operator arms it again"
    robot.control.order(Order.ARM)
    robot.moves(20)
    assert_no_jump(robot)


def test_a_link_that_is_lost_mid_motion_holds_at_once_and_goes_on_without_a_jump(robot: Stage) -> None:
    robot.arm()
    robot.moves(40)
    lost = time.monotonic()
    robot.link.lose()
    robot.rests()
    targets = robot.listeners[0].targets()
    still = next(each.at_s for each in targets if each.joints == targets[-1].joints)
    assert robot.listeners[0].num_between(lost, still) <= 0.5 * HZ
    after = [each for each in targets if each.at_s >= lost]
    sizes = np.abs(np.diff([each.joints[0] for each in after]))
    assert all(b <= a + UNIT for a, b in itertools.pairwise(sizes[1:])), "it only decelerates"
    repeated = [each for each in robot.listeners[0].targets() if each.joints == targets[-1].joints]
    assert len(repeated) >= 6, "the last command is repeated"
    assert robot.simulated[0].is_enabled
    robot.link.connect(epoch=2)
    robot.moves(40)
    assert_no_jump(robot)


def test_a_chunk_of_an_old_epoch_after_a_partition_is_not_played(robot: Stage) -> None:
    robot.arm()
    robot.moves(40)
    robot.link.lose()
    robot.rests()
    robot.link.answers = False
    old = robot.link.made[-1]
    robot.link.connect(epoch=2)
    refused = robot.control.counts.refused_chunks
    executed = robot.control.counts.executed
    for sequence in (old.sequence, old.sequence + 50):
        moment = robot.mailbox.moment
        assert moment is not None
        late = chunk(swing(moment, 0), moment, sequence, epoch=1)
        robot.mailbox.to_control.append(Arrived(late, 3.0))
    eventually(lambda: robot.control.counts.refused_chunks >= refused + 2)
    robot.rests()
    assert robot.control.counts.executed == executed


def test_a_chunk_of_an_observation_from_before_a_hold_is_not_played(robot: Stage) -> None:
    """The link was silent and came back on the same stream, with a chunk that was on its way."""
    robot.arm()
    robot.moves(40)
    robot.link.answers = False
    moment = robot.mailbox.moment
    robot.link.lose()
    robot.rests()
    robot.link.connect(epoch=1)
    eventually(lambda: robot.control.status.hold == "")
    executed = robot.control.counts.executed
    assert moment is not None
    robot.mailbox.to_control.append(Arrived(chunk(swing(moment, 0), moment, 900), 1.0))
    robot.rests(ticks=10)
    assert robot.control.counts.executed == executed


def shuffled(robot: Stage) -> None:
    """Chunks come twice, late, and in pairs in the wrong order."""
    kept: list[ActionChunk] = []

    def deliver(made: ActionChunk) -> list[ActionChunk]:
        kept.append(made)
        if len(kept) % 3 == 0:
            return [kept[-1], kept[-2], kept[-1]]
        return [] if len(kept) % 3 == 2 else [made, made]

    robot.link.deliver = deliver


def test_chunks_that_come_twice_late_and_out_of_order_never_make_a_jump(robot: Stage) -> None:
    shuffled(robot)
    robot.arm()
    robot.moves(250)
    assert_no_jump(robot)
    assert robot.control.counts.refused_chunks > 3
    played = [(line["chunk"], line["index"]) for line in lines(robot, "tick") if line["source"] != "hold"]
    assert len(set(played)) == len(played), "no action is executed twice"


@pytest.mark.parametrize("latency_s", [0.3, 0.8])
def test_a_constant_latency_may_pause_the_arm_and_never_makes_it_jump(robot: Stage, latency_s: float) -> None:
    robot.link.latency_s = latency_s
    robot.link.connect()
    robot.arm()
    robot.moves(150)
    assert_no_jump(robot)
    assert robot.control.counts.chunks >= 2


def test_a_latency_that_no_chunk_covers_pauses_the_arm_at_rest_between_chunks(robot: Stage) -> None:
    robot.link.latency_s = 0.8
    robot.link.motion = lambda moment, sequence: swing(moment, sequence)[:20]
    robot.link.connect()
    robot.arm()
    robot.moves(45)
    assert robot.control.counts.pauses >= 2
    assert_no_jump(robot)


def test_a_silent_arm_is_stopped_and_the_other_one_holds(robot: Stage) -> None:
    robot.arm()
    robot.moves(30)
    robot.simulated[0].silent = True
    silent = time.monotonic()
    eventually(lambda: robot.phase is Phase.STOPPED and robot.listeners[0].of(STOP_FRAME) != [])
    stop = robot.listeners[0].of(STOP_FRAME)
    assert stop[0].data.hex() == "0100000000000000"
    assert robot.listeners[1].num_between(silent, stop[0].at_s) <= 0.8 * HZ
    robot.rests(arm=1)
    assert [each for each in robot.listeners[0].of(*TARGET_FRAMES) if each.at_s > stop[-1].at_s] == []
    assert robot.listeners[1].of(STOP_FRAME) == []
    assert robot.simulated[1].is_enabled
    assert_no_jump(robot)
    [fault] = lines(robot, "fault")
    assert (fault["arm"], str(fault["faults"]).startswith("['no feedback for")) == ("left", True)
    robot.simulated[0].silent = False
    time.sleep(0.3)
    assert robot.phase is Phase.STOPPED, "latched"


@pytest.mark.parametrize(
    ("switch", "value", "words"),
    [
        ("fault_status", 7, "arm status 7: collision"),
        ("fault_status", 5, "arm status 5: no communication with a joint"),
        ("driver_flags", 1 << 1, "motor 1: motor too hot"),
        ("taken_over", True, "another controller has the arm: control mode 2"),
        ("torn", True, "no feedback for"),
    ],
)
def test_an_arm_that_is_in_error_is_stopped_and_the_other_one_holds(
    robot: Stage, switch: str, value: object, words: str
) -> None:
    robot.arm()
    robot.moves(20)
    setattr(robot.simulated[1], switch, value)
    eventually(lambda: robot.phase is Phase.STOPPED)
    robot.rests(arm=0)
    assert words in robot.control.status.hold
    eventually(lambda: robot.listeners[1].of(STOP_FRAME) != [])
    assert robot.listeners[0].of(STOP_FRAME) == []
    assert_no_jump(robot)


def test_frames_that_cannot_be_sent_are_a_fault(robot: Stage) -> None:
    robot.arm()
    robot.moves(20)
    robot.arms[0].close()
    eventually(lambda: robot.phase is Phase.STOPPED)
    assert "left" in robot.control.status.hold
    robot.rests(arm=1)


def test_an_emergency_stop_stops_both_arms_from_any_thread_and_is_latched(robot: Stage) -> None:
    robot.arm()
    robot.moves(30)
    stopper = threading.Thread(target=robot.control.emergency_stop, args=("key",))
    stopper.start()
    stopper.join()
    eventually(lambda: robot.phase is Phase.STOPPED)
    eventually(lambda: all(listener.of(STOP_FRAME) != [] for listener in robot.listeners))
    time.sleep(0.3)
    for listener in robot.listeners:
        stop = listener.of(STOP_FRAME)
        assert stop[0].data[0] == 1
        assert [each for each in listener.of(*TARGET_FRAMES, ENABLE_FRAME) if each.at_s > stop[0].at_s] == []
    robot.control.order(Order.ARM)
    time.sleep(0.2)
    assert robot.phase is Phase.STOPPED


def test_a_stop_that_does_not_reach_the_arm_is_sent_until_the_arm_tells_that_it_is_stopped(robot: Stage) -> None:
    robot.arm()
    robot.moves(20)
    unplugged = robot.simulated[0]
    unplugged.silent = unplugged.deaf = True
    eventually(lambda: robot.phase is Phase.STOPPED)
    unplugged.silent = unplugged.deaf = False

    def is_stopped() -> bool:
        status = robot.arms[0].latest().status
        return status is not None and status.arm_status == STATUS_EMERGENCY_STOP

    eventually(is_stopped)
    time.sleep(0.1)
    sent = len(robot.listeners[0].of(STOP_FRAME))
    time.sleep(0.3)
    assert len(robot.listeners[0].of(STOP_FRAME)) == sent, "and no longer"


def test_an_emergency_stop_outlives_a_recovery_that_was_ordered_before_it(robot: Stage) -> None:
    robot.arm()
    robot.control.emergency_stop("key")
    eventually(lambda: robot.phase is Phase.STOPPED)
    robot.control.order(Order.RECOVER)
    robot.control.emergency_stop("key")
    eventually(lambda: robot.listeners[0].of(STOP_FRAME) != [])
    time.sleep(0.2)
    assert robot.phase is Phase.STOPPED
    assert [frame.data[0] for frame in robot.listeners[0].of(STOP_FRAME)][-1] == 1
    assert all(arm.is_stopped for arm in robot.arms)


def stalled(robot: Stage, seconds: float) -> float:
    """The whole process stands still, as under a debugger or on a computer that sleeps. When it goes on."""
    script = f"kill -STOP {os.getpid()}; sleep {seconds}; kill -CONT {os.getpid()}"
    with subprocess.Popen(["sh", "-c", script]):
        pass
    return time.monotonic()


def test_a_process_that_stood_still_stops_no_arm_and_goes_on_with_a_new_chunk(robot: Stage) -> None:
    """What it has read is as old as its pause. That is no fault of the arms, which stand at their last target."""
    robot.arm()
    robot.moves(40)
    robot.link.answers = False
    before = robot.listeners[0].targets()[-1].at_s
    stalled(robot, STALL_S)
    eventually(lambda: robot.listeners[0].targets()[-1].at_s > before + STALL_S + 0.4)
    assert robot.phase is Phase.READY
    assert all(listener.of(STOP_FRAME) == [] for listener in robot.listeners)
    targets = robot.listeners[0].targets()
    gap = max(range(1, len(targets)), key=lambda i: targets[i].at_s - targets[i - 1].at_s)
    later = targets[gap + 1 :]
    assert len(later) < (later[-1].at_s - later[0].at_s) * HZ + 0.5 * STALL_S * HZ, "no burst of the steps it missed"
    assert {each.joints for each in later} == {later[0].joints}, "chunks of before are not played"
    eventually(lambda: any("the process stood still" in str(line["why"]) for line in lines(robot, "hold")))
    robot.link.answers = True
    robot.moves(40)
    assert_no_jump(robot)


def test_an_arm_that_is_silent_after_a_standstill_is_stopped(robot: Stage) -> None:
    robot.arm()
    robot.moves(20)
    robot.simulated[1].silent = True
    stalled(robot, STALL_S)
    eventually(lambda: robot.phase is Phase.STOPPED)
    eventually(lambda: robot.listeners[1].of(STOP_FRAME) != [])
    assert robot.listeners[0].of(STOP_FRAME) == []


def test_a_link_thread_that_stands_still_is_a_lost_link(robot: Stage) -> None:
    robot.arm()
    robot.moves(20)
    robot.link.answers = False
    robot.mailbox.link = replace(robot.mailbox.link, at_s=time.monotonic())
    eventually(lambda: robot.control.status.hold == "link lost")
    robot.rests()


def test_an_arm_whose_pose_is_outside_of_its_range_by_more_than_a_step_is_not_armed(robot: Stage) -> None:
    """The first target lies in the range: the arm would go there at once."""
    robot.simulated[0]._axes[1] = -STEP * 1.5
    eventually(lambda: (robot.arms[0].latest().axes or (0, 1))[1] < 0)
    robot.control.order(Order.ARM)
    eventually(lambda: lines(robot, "refused") != [])
    assert robot.phase is Phase.DISARMED
    assert [listener.frames for listener in robot.listeners] == [[], []]
    assert "left_joint_2" in str(lines(robot, "refused")[0]["why"])


def test_after_the_operators_recovery_the_arms_begin_where_they_are(robot: Stage) -> None:
    robot.arm()
    robot.moves(30)
    robot.control.emergency_stop("key")
    eventually(lambda: robot.phase is Phase.STOPPED)
    robot.control.order(Order.RECOVER)
    eventually(lambda: robot.phase is Phase.DISARMED)
    eventually(lambda: not robot.arms[0].latest().is_enabled)
    fallen = robot.simulated[0]
    fallen._axes[1] += 0.3
    eventually(lambda: robot.arms[0].latest().axes == pytest.approx(fallen.axes, abs=3e-5))
    since = time.monotonic()
    robot.arm()
    first = next(each for each in robot.listeners[0].targets() if each.at_s > since)
    assert first.joints == pytest.approx(fallen.axes[:6], abs=3e-5)
    robot.moves(20)


def test_a_blind_robot_holds_and_goes_on_when_it_sees_again(robot: Stage) -> None:
    robot.arm()
    robot.moves(30)
    robot.mailbox.link = replace(robot.mailbox.link, problem="camera top: the same picture for 1.2 s")
    robot.rests()
    assert robot.control.status.hold.startswith("camera top")
    robot.mailbox.link = replace(robot.mailbox.link, problem="")
    robot.moves(30)
    assert_no_jump(robot)


def test_the_operator_holds_and_arms_again(robot: Stage) -> None:
    robot.arm()
    robot.moves(30)
    robot.control.order(Order.HOLD)
    robot.rests()
    assert robot.control.status.hold == "operator"
    robot.control.order(Order.ARM)
    robot.moves(30)
    assert_no_jump(robot)


def test_leaving_comes_to_rest_and_neither_stops_nor_disables(robot: Stage) -> None:
    robot.arm()
    robot.moves(40)
    robot.control.order(Order.LEAVE)
    assert robot.loop.join(20)
    for listener, simulated in zip(robot.listeners, robot.simulated, strict=True):
        assert len({each.joints for each in listener.targets()[-2:]}) == 1
        assert listener.of(STOP_FRAME) == []
        assert {frame.data[1] for frame in listener.of(ENABLE_FRAME)} == {2}
        assert simulated.is_enabled
    assert_no_jump(robot)


def test_a_dry_run_decides_everything_and_sends_nothing(tmp_path: Path) -> None:
    with stage(tmp_path, is_dry=True) as robot:
        robot.arm()
        robot.moves(40)
        robot.control.emergency_stop("key")
        eventually(lambda: robot.phase is Phase.STOPPED)
        assert [listener.frames for listener in robot.listeners] == [[], []]
        assert len(robot.control.status.command) == 14


def test_an_arm_that_was_moved_by_hand_before_arming_begins_there(robot: Stage) -> None:
    robot.simulated[1]._axes[0] += 0.5
    eventually(lambda: (robot.arms[1].latest().axes or (0,))[0] > REST_POSE[0] + 0.49)
    robot.arm()
    assert robot.listeners[1].targets()[0].joints[0] == pytest.approx(REST_POSE[0] + 0.5, abs=3e-5)


def test_the_service_gets_reports(robot: Stage) -> None:
    robot.arm()
    robot.moves(60)
    robot.link.lose()
    robot.rests()
    eventually(lambda: any(each.hold_reason is HoldReason.LINK_LOST for each in robot.mailbox.reports))
    report = robot.mailbox.reports[-1]
    assert report.executed_to_step > 60
    assert 0 <= report.tracking_error < 0.2
    assert math.isfinite(report.seam_jump)


def test_degrees_and_millimetres_reach_the_bus_as_radians_do(tmp_path: Path) -> None:
    base = config()
    units = replace(base.units, joint="deg", gripper="mm")
    with stage(tmp_path, replace(base, units=units)) as robot:

        def lift(moment: Moment, sequence: int) -> Array:
            state = np.array(moment.state)
            assert state[0] == pytest.approx(math.degrees(REST_POSE[0]), abs=0.01)
            actions = np.repeat(state[None], HORIZON, axis=0)
            actions[:, 0] += np.minimum(np.arange(1, HORIZON + 1), 20) * 0.5
            actions[:, 6] = 25.0
            return actions

        robot.link.motion = lift
        robot.arm()
        robot.moves(30)
        robot.link.answers = False
        robot.rests()
        assert_no_jump(robot)
        assert robot.simulated[0].axes[6] == pytest.approx(0.025, abs=1e-4)
