"""Parts of the control that need no bus: the approach, the loop's deadlines, the preflight's judgement."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.clients.chunks import chunk_of
from tests.clients.piper.stage import EXAMPLE, SESSION, config, policy
from wavserve.clients.piper import config as configs
from wavserve.clients.piper.config import PiperConfig, RtcConfig, UnitsConfig
from wavserve.clients.piper.feedback import Feedback, Gripper, Pose, Status
from wavserve.clients.piper.limits import AXIS_RANGES, JOINT_RANGES
from wavserve.clients.piper.loop import RateLoop
from wavserve.clients.piper.motion import Approach
from wavserve.clients.piper.playback import Playback
from wavserve.clients.piper.preflight import Check, Demands, answer_checks, arm_checks, contract_checks
from wavserve.clients.piper.simulated import REST_POSE
from wavserve.clients.piper.vectors import Units
from wavserve.clients.piper.watch import Standstill
from wavserve.core.messages import PolicyInfo
from wavserve.core.spec import LimitsSpec, RtcSpec

angles = st.floats(-3, 3, allow_nan=False)


@given(st.lists(st.tuples(angles, angles), min_size=1, max_size=14), st.integers(1, 20))
def test_an_approach_is_slow_smooth_and_ends_exactly_at_its_target(ways: list[tuple[float, float]], ramp: int) -> None:
    start, target = np.array(ways).T
    step = np.full(len(ways), 0.01)
    approach, path = Approach(start, target, step, ramp), [start]
    while not approach.is_over:
        path.append(approach.next())
        assert len(path) < 2000
    changes = np.abs(np.diff(np.array(path), axis=0))
    assert np.array_equal(path[-1], start + (target - start)) or len(path) == 1
    assert changes.max(initial=0) <= 0.01 + 1e-9
    assert np.abs(np.diff(changes, axis=0)).max(initial=0) <= 1.5 * 0.01 / ramp + 1e-9


@given(st.integers(0, 60), st.integers(1, 12))
def test_an_approach_that_is_stopped_rests_on_its_line(before: int, ramp: int) -> None:
    approach = Approach(np.zeros(2), np.array([0.5, -0.25]), np.full(2, 0.01), ramp)
    for _ in range(before):
        position = approach.next()
    approach.stop()
    for _ in range(ramp + 1):
        position = approach.next()
    assert approach.is_over
    assert np.array_equal(approach.next(), position)
    assert position[1] == pytest.approx(-position[0] / 2)


class Steps:
    """A clock that only sleeps and ticks move."""

    def __init__(self, durations: list[float]) -> None:
        self.now, self.begins, self.lates = 50.0, list[float](), list[float]()
        self._durations = durations

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def tick(self, late_s: float) -> bool:
        self.begins.append(round(self.now - 50.0, 6))
        self.lates.append(round(late_s, 6))
        self.now += self._durations.pop(0)
        return not self._durations


def test_ticks_keep_absolute_deadlines() -> None:
    time = Steps([0.01, 0.06, 0.02, 0.0])
    loop = RateLoop(time.tick, 0.1, time, time.sleep)
    loop.run()
    assert time.begins == [0.0, 0.1, 0.2, 0.3]
    assert (loop.num_dropped, loop.failure) == (0, "")


def test_an_overrun_drops_ticks_and_never_bursts() -> None:
    time = Steps([0.35, 0.12, 0.0, 0.0])
    loop = RateLoop(time.tick, 0.1, time, time.sleep)
    loop.run()
    assert time.begins == [0.0, 0.4, 0.52, 0.6]
    assert loop.num_dropped == 3
    assert min(np.diff(time.begins)) > 0.05


def test_an_exception_ends_the_loop_and_is_kept() -> None:
    loop = RateLoop(lambda late: 1 / 0 > 0, 0.1)  # type: ignore[arg-type]
    loop.start()
    assert loop.join(10)
    assert "ZeroDivisionError" in loop.failure


def red(checks: list[Check]) -> list[tuple[str, str, str]]:
    return [(check.name, check.expected, check.actual) for check in checks if not check.is_ok]


REAL, VIRTUAL = Demands(is_virtual=False), Demands(is_virtual=True)


def test_a_policy_that_fits_has_no_red_line() -> None:
    robot = config()
    for demands in (REAL, VIRTUAL, Demands(True, True)):
        assert red(contract_checks(robot, policy(robot), demands)) == []


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"name": "other"}, "name"),
        ({"embodiment": "aloha"}, "embodiment"),
        ({"embodiment": ""}, "embodiment"),
        ({"control_hz": 20.0}, "control rate"),
        ({"untrained": True}, "training"),
        ({"golden_digest": ""}, "golden plan"),
    ],
)
def test_a_real_bus_refuses_a_policy_that_does_not_fit(changes: dict[str, object], name: str) -> None:
    robot = config()
    assert [each[0] for each in red(contract_checks(robot, policy(robot, **changes), REAL))] == [name]


def test_real_time_chunking_that_the_policy_does_not_have_is_red() -> None:
    robot, modes = config(), "off or rtc_guided"
    trained = replace(robot, rtc=RtcConfig("rtc_trained"))
    found = red(contract_checks(trained, policy(robot), REAL))
    assert found == [("real-time chunking", modes, "rtc_trained")]
    far = replace(robot, rtc=RtcConfig("rtc_guided", execution_horizon=55))
    assert red(contract_checks(far, policy(robot), REAL)) == [("execution horizon", "1 to 54 steps", "55 steps")]
    by_default = policy(robot, rtc=RtcSpec("rtc_guided"))
    shown = {check.name: check.actual for check in contract_checks(robot, by_default, REAL)}
    assert (shown["real-time chunking"], shown["execution horizon"]) == ("rtc_guided", "10 steps")


def test_the_delay_of_a_trained_policy_is_at_most_the_trained_one() -> None:
    robot = replace(config(), rtc=RtcConfig("rtc_trained"))
    info = policy(robot, rtc_modes=("off", "rtc_guided", "rtc_trained"), max_trained_delay=4)
    assert [Playback(robot, info).inference_delay(steps) for steps in (None, 3, 9)] == [0, 3, 4]


def test_no_flag_lets_an_untrained_policy_or_one_without_golden_plan_onto_a_real_bus() -> None:
    robot = config()
    info = policy(robot, untrained=True, golden_digest="")
    found = red(contract_checks(robot, info, Demands(is_virtual=False, allow_untrained=True)))
    assert [each[0] for each in found] == ["training", "golden plan"]
    assert [each[0] for each in red(contract_checks(robot, info, VIRTUAL))] == ["training"]
    assert red(contract_checks(robot, info, Demands(is_virtual=True, allow_untrained=True))) == []


def changed(info: PolicyInfo, part: str, **fields: object) -> PolicyInfo:
    return replace(info, **{part: replace(getattr(info, part), **fields)})  # type: ignore[arg-type]


def test_names_units_order_and_cameras_are_compared_entry_by_entry() -> None:
    robot = config()
    info = policy(robot)
    swapped = (info.state.names[7:], info.state.names[:7])
    names = red(contract_checks(robot, changed(info, "state", names=swapped[0] + swapped[1]), REAL))
    assert names == [("state names", "[0] left_joint_1", "[0] right_joint_1")]
    units = red(contract_checks(robot, changed(info, "action", units=("deg",) * 14), REAL))
    assert units == [("action units", "left_joint_1 rad", "left_joint_1 deg")]
    fewer = red(contract_checks(robot, changed(info, "action", names=info.action.names[:7]), REAL))
    assert fewer == [("action names", "14 entries", "7 entries")]
    offsets = changed(info, "action", hold=("zero",) * 14)
    assert red(contract_checks(robot, offsets, REAL)) == [("action at rest", "positions", "offsets")]
    blind = red(contract_checks(robot, replace(info, cameras=info.cameras[:2]), REAL))
    assert blind == [("cameras", "3 entries", "2 entries")]


def test_limits_that_leave_an_axis_no_room_are_red() -> None:
    robot = config()
    limits = LimitsSpec(position=((3.0, 3.1), *((None,) * 13)))
    assert red(contract_checks(robot, changed(policy(robot), "action", limits=limits), REAL)) == [
        ("limits", "a range for every axis, or none declared", "no range for left_joint_1")
    ]


def test_limits_that_are_not_declared_are_no_range_for_every_axis() -> None:
    robot = config()
    found = {check.name: check.actual for check in contract_checks(robot, policy(robot), REAL)}
    assert found["limits"] == "none declared: the arm's own ranges"
    wide = LimitsSpec(position=(None,) * 14)
    found = {c.name: c.actual for c in contract_checks(robot, changed(policy(robot), "action", limits=wide), REAL)}
    assert found["limits"] == "a range for every axis"


def scale_of(robot: PiperConfig, limits: LimitsSpec, pose: tuple[float, ...]) -> Check:
    info = changed(policy(robot), "action", limits=limits)
    [found] = [c for c in contract_checks(robot, info, REAL, np.array(pose * 2)) if c.name == "scale"]
    return found


POSE = (0.1, 1.0, -1.0, 0.0, 0.0, 0.0, 0.03)


def test_degrees_that_are_declared_as_rad_are_red() -> None:
    robot = config()
    good = scale_of(robot, LimitsSpec(position=AXIS_RANGES * 2), POSE)
    assert (good.is_ok, good.actual) == (True, "they fit")
    degrees = tuple((math.degrees(low), math.degrees(high)) for low, high in AXIS_RANGES[:6])
    bad = scale_of(robot, LimitsSpec(position=(*degrees, (0.0, 0.07)) * 2), POSE)
    assert not bad.is_ok
    assert bad.actual.startswith("left_joint_1 may go to -150 .. 150 rad, far beyond its reach; left_joint_2")


def test_radians_that_are_declared_as_degrees_are_red() -> None:
    robot = replace(config(), units=UnitsConfig(joint="deg", gripper="m"))
    bad = scale_of(robot, LimitsSpec(position=((0.0, 3.14), *((None,) * 13))), (1.0, *POSE[1:]))
    assert (bad.is_ok, bad.actual) == (False, "left_joint_1 is at 57.3 deg, far outside of 0 .. 3.14")


def feedback(now: float, joints: tuple[float, ...], status: int = 0, age_s: float = 0.0) -> Feedback:
    at = now - age_s
    return Feedback(Pose(joints, at), Gripper(0.01, at), Status(0, status, 0, at), (0,) * 6, at, 100, 0)


def test_an_arm_without_feedback_with_zeros_or_a_fault_is_red() -> None:
    import time

    robot, now = configs.load(EXAMPLE), time.monotonic()
    good = (0.1, 0.2, -0.3, 0.0, 0.0, 0.0)
    assert red(arm_checks(robot, "left", feedback(now, good), 199.0)) == []
    assert red(arm_checks(robot, "left", feedback(now, good), 60.0)) == [("feedback", "at least 150 Hz", "60 Hz")]
    assert [each[0] for each in red(arm_checks(robot, "left", feedback(now, (0.0,) * 6), 199.0))] == ["pose"]
    assert [each[0] for each in red(arm_checks(robot, "left", feedback(now, good, age_s=1.0), 199.0))] == ["status"]
    assert red(arm_checks(robot, "left", feedback(now, good, age_s=0.05), 199.0)) == []
    assert "no feedback for" in red(arm_checks(robot, "left", feedback(now, good, age_s=0.101), 199.0))[0][2]
    [stopped] = red(arm_checks(robot, "left", feedback(now, good, status=1), 199.0))
    assert "emergency stop" in stopped[2]
    outside = (0.1, -0.2, -0.3, 0.0, 0.0, 0.0)
    assert red(arm_checks(robot, "left", feedback(now, outside), 199.0)) == [
        ("range", "every axis inside", "axis 2: -0.200")
    ]
    slow = replace(robot, motion=replace(robot.motion, max_joint_speed=0.3))
    hair = (0.1, -0.02, -0.3, 0.0, 0.0, 0.0)
    assert red(arm_checks(robot, "left", feedback(now, hair), 199.0)) == []
    assert [each[2] for each in red(arm_checks(slow, "left", feedback(now, hair), 199.0))] == ["axis 2: -0.020"]
    closed = replace(feedback(now, good), gripper=Gripper(-0.03, now))
    assert [each[2] for each in red(arm_checks(robot, "left", closed, 199.0))] == ["axis 7: -0.030"]
    nothing = Feedback(None, None, None, (), None, 0, 0)
    assert [each[0] for each in red(arm_checks(robot, "left", nothing, 0.0))] == ["feedback", "status", "pose", "range"]


def test_old_firmware_and_narrower_limits_are_red() -> None:
    assert red(answer_checks("left", "S-V1.8-2", JOINT_RANGES)) == []
    assert red(answer_checks("left", "S-V1.10-1", JOINT_RANGES)) == []
    assert red(answer_checks("left", "S-V1.5-1", JOINT_RANGES)) == [("firmware", "S-V1.5-2 or newer", "S-V1.5-1")]
    assert red(answer_checks("left", None, JOINT_RANGES)) == [("firmware", "S-V1.5-2 or newer", "no answer")]
    narrow = ((-1.0, 1.0), *JOINT_RANGES[1:5], None)
    assert red(answer_checks("left", "S-V1.8-2", narrow)) == [
        ("limits", "as in our table", "joint 1: -57 to 57 deg; joint 6: no answer")
    ]


def test_units_convert_both_ways() -> None:
    units = Units(replace(config(), units=UnitsConfig("deg", "mm")))
    axes = np.array([math.pi, 0.0, 0.0, 0.0, 0.0, 0.0, 0.05] * 2)
    values = units.to_policy(axes)
    assert values[[0, 6, 7, 13]] == pytest.approx([180.0, 50.0, 180.0, 50.0])
    assert units.from_policy(values) == pytest.approx(axes)


@pytest.mark.parametrize(("resumed", "source"), [(True, "chunk"), (False, "hold")])
def test_the_robot_moves_on_only_when_its_session_goes_on_at_another_gateway(resumed: bool, source: str) -> None:
    robot = config()
    playback = Playback(robot, policy(robot))
    playback.begin_epoch(SESSION, 1)
    playback.start_at(np.array(REST_POSE * 2))
    still = np.repeat(np.array(REST_POSE * 2, np.float32)[None], 54, axis=0)
    assert playback.take(chunk_of(still, playback.step, 1, session_id=SESSION)) == ""
    for _ in range(12):
        playback.next()
    assert playback.playing.source == "chunk"
    playback.begin_epoch(SESSION, 2, resumed)
    assert playback.next().source == source


def test_a_far_first_command_is_approached_only_once_the_robot_has_come_to_rest() -> None:
    """The chunk runs out at full speed, and the next one, which is far, comes in the second step of the hold."""
    robot = config()
    playback = Playback(robot, policy(robot))
    playback.begin_epoch(SESSION, 1)
    playback.start_at(np.array(REST_POSE * 2))
    moving = np.repeat(np.array(REST_POSE * 2, np.float32)[None], 20, axis=0)
    moving[:, 0] += 0.03 * np.arange(20)
    assert playback.take(chunk_of(moving, playback.step, 1, session_id=SESSION)) == ""
    sent = [playback.next() for _ in range(21)][-2:]
    assert [each.source for each in sent] == ["chunk", "hold"]
    far = np.repeat(np.array(REST_POSE * 2, np.float32)[None], 20, axis=0)
    assert playback.take(chunk_of(far, playback.step, 2, session_id=SESSION)) == ""
    assert playback.is_approaching
    sent += [playback.next() for _ in range(200)]
    assert not playback.is_approaching
    way = np.array([each.action for each in sent], np.float64)[:, 0]
    assert way[-1] == pytest.approx(REST_POSE[0], abs=1e-6)
    assert np.abs(np.diff(way, 2)).max() <= 0.03 / playback.stop_steps + 1e-6, "the speed never falls faster"
    assert playback.take(chunk_of(far, playback.step, 3, session_id=SESSION)) == "", "the next one is played"


@pytest.mark.parametrize("hz", [1.0, 5.0, 10.0, 30.0, 200.0])
def test_a_late_tick_is_no_standstill_at_any_control_rate(hz: float) -> None:
    dt_s, now = 1 / hz, 10.0
    standstill = Standstill(0.1, dt_s)
    assert standstill.passed(now) == 0.0
    for late in (1.0, 1.4, 0.6, 1.0):
        now += late * dt_s
        assert standstill.passed(now) == 0.0
    stood_s = max(0.1, 1.5 * dt_s) + 0.01
    assert standstill.passed(now + stood_s) == pytest.approx(stood_s)
