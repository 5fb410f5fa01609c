"""The real piper-sdk on python-can's virtual bus, against a simulated arm whose frames are made by hand."""

from __future__ import annotations

import math
import threading
import time
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.clients.piper.rig import ENABLE_FRAME, STOP_FRAME, connected, enable, eventually
from wavserve.clients.piper.arm import Arm, channel_problem
from wavserve.clients.piper.feedback import FeedbackReader
from wavserve.clients.piper.limits import AXIS_RANGES, JOINT_RANGES
from wavserve.clients.piper.simulated import REST_POSE
from wavserve.core.errors import InvalidRequest, NotReady


def test_the_sdk_is_the_pinned_version() -> None:
    """The hazards that `arm` and `feedback` avoid were measured on this version."""
    assert version("piper_sdk") == "0.6.2"


def test_a_pose_is_read_in_radians_and_metres() -> None:
    with connected() as (arm, _, _):
        axes = arm.latest().axes
        assert axes == pytest.approx(REST_POSE, abs=2e-5)
        assert arm.latest().age_s(time.monotonic()) < 20


def test_the_arm_tells_its_firmware_and_its_limits_motor_by_motor() -> None:
    with connected() as (arm, _, _):
        eventually(lambda: arm.firmware() is not None)
        assert arm.firmware() == "S-V1.8-2"
        limits = arm.joint_limits(timeout_s=10)
        assert [limit and tuple(map(math.degrees, limit)) for limit in limits] == [
            pytest.approx(tuple(map(math.degrees, each)), abs=0.06) for each in JOINT_RANGES
        ]


def test_reading_and_connecting_send_no_target_and_enable_nothing() -> None:
    with connected() as (arm, simulated, listener):
        arm.joint_limits(timeout_s=10)
        assert listener.frames == []
        assert not simulated.is_enabled


def test_a_command_reaches_the_bus_in_thousandths_of_a_degree_rounded() -> None:
    with connected() as (arm, _, listener):
        enable(arm)
        arm.command((math.radians(90.0), 1.0, -1.0, 0.0, math.radians(-0.0016), 0.5, 0.05))
        eventually(lambda: len(listener.of(0x159)) >= 2)
        assert listener.of(0x155)[-1].data.hex() == "00015f900000dfd0"
        assert (
            listener.of(0x157)[-1].data.hex() == "fffffffe" + round(math.degrees(0.5) * 1000).to_bytes(4, "big").hex()
        )
        assert listener.of(0x159)[-1].data.hex() == "0000c35003e80100"
        assert {frame.data.hex() for frame in listener.of(0x151)} == {"0101640000000000"}, "MOVE J, never MIT"


def test_the_arm_goes_where_it_is_sent() -> None:
    with connected() as (arm, simulated, _):
        enable(arm)
        target = [REST_POSE[0] + 0.2, *REST_POSE[1:6], 0.05]
        arm.command(target)
        eventually(lambda: arm.latest().axes == pytest.approx(target, abs=3e-5))
        assert simulated.axes == pytest.approx(target, abs=3e-5)


@pytest.mark.parametrize(
    ("axis", "value"), [(0, math.nan), (0, math.inf), (1, -0.1), (2, 0.1), (6, 0.071), (6, -1e-6), (4, 70.0)]
)
def test_a_command_outside_the_arms_ranges_is_refused_and_nothing_is_sent(axis: int, value: float) -> None:
    with connected() as (arm, _, listener):
        axes = list(REST_POSE)
        axes[axis] = value
        with pytest.raises(InvalidRequest, match=f"axis {axis + 1}"):
            arm.command(axes)
        with pytest.raises(InvalidRequest, match="7 numbers"):
            arm.command(axes[:6])
        assert listener.frames == []


def test_after_an_emergency_stop_no_target_reaches_the_bus() -> None:
    with connected() as (arm, _, listener):
        enable(arm)
        arm.command(REST_POSE)
        senders = [threading.Thread(target=lambda: [arm.command(REST_POSE) for _ in range(200)]) for _ in range(2)]
        for sender in senders:
            sender.start()
        arm.emergency_stop()
        for sender in senders:
            sender.join()
        assert arm.command(REST_POSE) is False
        assert arm.enable() is False
        eventually(lambda: arm.latest().status is not None and arm.latest().status.arm_status == 1)  # type: ignore[union-attr]
        eventually(lambda: listener.of(STOP_FRAME) != [])
        ids = [frame.frame_id for frame in listener.frames]
        assert listener.of(STOP_FRAME)[0].data.hex() == "0100000000000000"
        assert set(ids[ids.index(STOP_FRAME) :]) == {STOP_FRAME}


def test_only_the_operators_reset_ends_the_stop_and_the_arm_is_limp_then() -> None:
    with connected() as (arm, simulated, _):
        enable(arm)
        arm.emergency_stop()
        arm.reset_and_drop()
        eventually(lambda: not arm.latest().is_enabled)
        assert not simulated.is_enabled
        enable(arm)
        assert arm.command(REST_POSE)


def test_a_silent_arm_shows_by_the_age_of_its_feedback() -> None:
    with connected() as (arm, simulated, _):
        simulated.silent = True
        eventually(lambda: arm.latest().age_s(time.monotonic()) > 0.1)
        assert arm.latest().axes == pytest.approx(REST_POSE, abs=2e-5), "the last pose, and never zeros"
        simulated.silent = False
        eventually(lambda: arm.latest().age_s(time.monotonic()) < 0.1)


def test_the_rest_of_a_sweep_never_joins_the_beginning_of_the_next_one() -> None:
    """One lost frame must not shift every later pose by a frame."""
    sdk = SimpleNamespace(GetArmJointMsgs=lambda: message)
    reader, now = FeedbackReader(lambda: now), 10.0
    for number in range(1, 5):
        state = SimpleNamespace(**{f"joint_{i}": number for i in range(1, 7)})
        for frame_id in (0x2A5, 0x2A6, 0x2A7):
            now += 0.001
            if (number, frame_id) != (1, 0x2A5):
                message = SimpleNamespace(time_stamp=now, joint_state=state)
                reader.received(frame_id, now, sdk)
                pose = reader.latest().pose
                assert pose is None or len(set(pose.joints)) == 1
    assert reader.latest().num_poses == 3


def test_a_pose_whose_frames_are_missing_is_never_shown() -> None:
    with connected() as (arm, simulated, _):
        enable(arm)
        simulated.torn = True
        time.sleep(0.05)
        before = arm.latest()
        arm.command([REST_POSE[0] + 0.3, *REST_POSE[1:]])
        eventually(lambda: simulated.axes[0] > REST_POSE[0] + 0.29)
        after = arm.latest()
        assert after.pose == before.pose
        assert after.num_torn > before.num_torn
        assert after.age_s(time.monotonic()) > 0.1


def test_failed_sends_are_counted() -> None:
    """The SDK returns None for a command on a closed bus, and logs."""
    with connected() as (arm, _, _):
        arm.command(REST_POSE)
        assert arm.num_failed_sends == 0
        arm.close()
        arm.command(REST_POSE)
        assert arm.num_failed_sends == 5


def test_driver_faults_are_read() -> None:
    with connected() as (arm, simulated, _):
        simulated.driver_flags = 1 << 4
        eventually(lambda: set(arm.latest().drivers) == {1 << 4})


def test_closing_neither_disables_nor_stops_the_arm() -> None:
    with connected() as (arm, simulated, listener):
        enable(arm)
        arm.close()
        assert simulated.is_enabled
        assert {frame.data[1] for frame in listener.of(ENABLE_FRAME)} == {2}
        assert listener.of(STOP_FRAME) == []


def test_a_channel_that_does_not_exist_is_refused() -> None:
    with pytest.raises(NotReady, match="can_nowhere cannot be opened: there is no such channel"):
        Arm("left", "can_nowhere").connect()


def test_a_channel_that_is_down_says_how_to_bring_it_up(tmp_path: Path) -> None:
    (tmp_path / "can_left").mkdir()
    (tmp_path / "can_left" / "type").write_text("280\n")
    (tmp_path / "can_left" / "operstate").write_text("down\n")
    assert channel_problem("can_left", tmp_path).startswith("it is down; `ip link set can_left up type can bitrate")
    (tmp_path / "can_left" / "operstate").write_text("up\n")
    assert channel_problem("can_left", tmp_path) == ""
    (tmp_path / "can_left" / "operstate").write_text("unknown\n")
    assert channel_problem("can_left", tmp_path) == "", "a virtual channel"
    assert channel_problem("../can_left", tmp_path / "can_left") != ""


def test_a_network_that_is_no_can_channel_says_so(tmp_path: Path) -> None:
    (tmp_path / "lo").mkdir()
    (tmp_path / "lo" / "type").write_text("772\n")
    (tmp_path / "lo" / "operstate").write_text("unknown\n")
    assert channel_problem("lo", tmp_path) == "it is no CAN channel; `ip link show type can` lists those"


def test_the_table_of_ranges_is_our_own_and_fits_the_arms() -> None:
    assert [tuple(map(round, map(math.degrees, each))) for each in AXIS_RANGES[:6]] == [
        (-150, 150),
        (0, 180),
        (-170, 0),
        (-100, 100),
        (-70, 70),
        (-120, 120),
    ]
