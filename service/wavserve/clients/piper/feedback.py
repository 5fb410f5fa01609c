"""What an arm reports, as copies that are whole and carry their age. Radians, metres, seconds.

The arm sends a pose in three frames. A pose counts only when its three frames came together: a mixture of two poses is
never shown. Ages use the monotonic clock. The reader thread of the SDK writes, any thread reads. Knows no bus.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from wavserve.clients.piper.limits import CONTROL_MODE_CAN, DRIVER_ENABLED, NUM_JOINTS
from wavserve.core.types import Clock

MAX_SWEEP_S = 0.02
"""The three frames of a pose come within this time. The arm sends 200 poses a second."""

_STATUS_FRAME = 0x2A1
_FIRST_JOINT_FRAME = 0x2A5
_JOINT_FRAMES = {0x2A5: (1, 2), 0x2A6: (3, 4), 0x2A7: (5, 6)}
_GRIPPER_FRAME = 0x2A8
_DRIVER_FRAMES = {0x261 + i: i for i in range(NUM_JOINTS)}
_RAD_PER_UNIT = math.radians(1e-3)
_M_PER_UNIT = 1e-6


@dataclass(frozen=True, slots=True)
class Pose:
    """Six joints in rad, from one sweep of frames, and when its first frame came (monotonic seconds)."""

    joints: tuple[float, ...]
    at_s: float


@dataclass(frozen=True, slots=True)
class Gripper:
    opening: float
    """m"""
    at_s: float


@dataclass(frozen=True, slots=True)
class Status:
    control_mode: int
    arm_status: int
    error_code: int
    at_s: float


@dataclass(frozen=True, slots=True)
class Feedback:
    """Everything known of an arm now. None: nothing came yet. Zeros are never shown as a pose."""

    pose: Pose | None
    gripper: Gripper | None
    status: Status | None
    drivers: tuple[int, ...]
    """status bytes of the six drivers"""
    drivers_at_s: float | None
    """when the oldest of the six came"""
    num_poses: int
    """whole poses since the start"""
    num_torn: int
    """sweeps that were dropped because a frame was missing, late or out of order"""

    @property
    def axes(self) -> tuple[float, ...] | None:
        """The joints in rad, then the gripper in m; None until both are known."""
        if self.pose is None or self.gripper is None:
            return None
        return (*self.pose.joints, self.gripper.opening)

    @property
    def is_enabled(self) -> bool:
        return self.drivers_at_s is not None and all(flags & DRIVER_ENABLED for flags in self.drivers)

    @property
    def takes_commands(self) -> bool:
        """Whether the arm obeys the CAN bus and no teaching button or other controller."""
        return self.status is not None and self.status.control_mode == CONTROL_MODE_CAN

    def age_s(self, now: float) -> float:
        """Age of the oldest of pose, gripper and status; infinite while one is missing."""
        parts = (self.pose, self.gripper, self.status)
        return max(math.inf if part is None else now - part.at_s for part in parts)

    def drivers_age_s(self, now: float) -> float:
        return math.inf if self.drivers_at_s is None else now - self.drivers_at_s


class FeedbackReader:
    """Takes each frame after the SDK has decoded it, and copies what it said."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sweep: dict[int, tuple[float, float]] = {}
        self._sweep_began = 0.0
        self._pose: Pose | None = None
        self._gripper: Gripper | None = None
        self._status: Status | None = None
        self._drivers: dict[int, tuple[int, float]] = {}
        self._num_poses = 0
        self._num_torn = 0

    def received(self, frame_id: int, timestamp: float, sdk: Any) -> None:
        """`sdk` has just decoded the frame. Its objects are live, so every number is copied here."""
        now = self._clock()
        if frame_id in _JOINT_FRAMES:
            self._joints(frame_id, timestamp, sdk.GetArmJointMsgs(), now)
        elif frame_id == _GRIPPER_FRAME:
            gripper = sdk.GetArmGripperMsgs()
            if gripper.time_stamp == timestamp:
                self._gripper = Gripper(gripper.gripper_state.grippers_angle * _M_PER_UNIT, now)
        elif frame_id == _STATUS_FRAME:
            status = sdk.GetArmStatus().arm_status
            self._status = Status(int(status.ctrl_mode), int(status.arm_status), int(status.err_code), now)
        elif frame_id in _DRIVER_FRAMES:
            index = _DRIVER_FRAMES[frame_id]
            motor = getattr(sdk.GetArmLowSpdInfoMsgs(), f"motor_{index + 1}")
            self._drivers[index] = (int(motor.foc_status_code), now)

    def latest(self) -> Feedback:
        drivers = [self._drivers.get(i) for i in range(NUM_JOINTS)]
        known = [driver for driver in drivers if driver is not None]
        return Feedback(
            pose=self._pose,
            gripper=self._gripper,
            status=self._status,
            drivers=tuple(flags for flags, _ in known),
            drivers_at_s=min(at for _, at in known) if len(known) == NUM_JOINTS else None,
            num_poses=self._num_poses,
            num_torn=self._num_torn,
        )

    def _joints(self, frame_id: int, timestamp: float, message: Any, now: float) -> None:
        if message.time_stamp != timestamp:  # the SDK refused the frame, and its object still holds the one before
            self._drop_sweep()
            return
        if frame_id != _FIRST_JOINT_FRAME + len(self._sweep) or now - self._sweep_began > MAX_SWEEP_S:
            self._drop_sweep()
            if frame_id != _FIRST_JOINT_FRAME:  # the rest of a sweep would join the beginning of the next one
                return
        if not self._sweep:
            self._sweep_began = now
        state, (first, second) = message.joint_state, _JOINT_FRAMES[frame_id]
        pair = getattr(state, f"joint_{first}"), getattr(state, f"joint_{second}")
        self._sweep[frame_id] = (pair[0] * _RAD_PER_UNIT, pair[1] * _RAD_PER_UNIT)
        if len(self._sweep) == len(_JOINT_FRAMES):
            joints = tuple(angle for each in sorted(self._sweep) for angle in self._sweep[each])
            self._pose = Pose(joints, self._sweep_began)
            self._num_poses += 1
            self._sweep = {}

    def _drop_sweep(self) -> None:
        self._num_torn += bool(self._sweep)
        self._sweep = {}
