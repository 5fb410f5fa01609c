"""What a Piper arm can do: ranges of its joints and gripper, speed, the meaning of its status. Radians and metres.

This is our own table: the SDK's is shared by all arms of a process, and its limits would also clamp what is measured.
Knows neither the SDK nor the bus.
"""

from __future__ import annotations

import math

NUM_JOINTS = 6
NUM_AXES = NUM_JOINTS + 1
"""of one arm: its joints, then its gripper"""

JOINT_RANGES = tuple(
    (math.radians(low), math.radians(high))
    for low, high in ((-150, 150), (0, 180), (-170, 0), (-100, 100), (-70, 70), (-120, 120))
)
GRIPPER_RANGE = (0.0, 0.07)
AXIS_RANGES = (*JOINT_RANGES, GRIPPER_RANGE)
MAX_JOINT_SPEED = 3.0
"""rad/s, of the arm itself"""

STATUS_OK = 0
STATUS_EMERGENCY_STOP = 1
CONTROL_MODE_CAN = 1
STATUS_TEXTS = {
    0: "normal",
    1: "emergency stop",
    2: "no solution",
    3: "singularity",
    4: "target beyond a limit",
    5: "no communication with a joint",
    6: "a joint's brake is closed",
    7: "collision",
    8: "too fast while dragged",
    9: "a joint is abnormal",
    10: "another fault",
    11: "teaching: records",
    12: "teaching: replays",
    13: "teaching: pauses",
    14: "main controller too hot",
    15: "brake resistor too hot",
}
DRIVER_ENABLED = 1 << 6
DRIVER_FAULTS = {
    1 << 0: "voltage too low",
    1 << 1: "motor too hot",
    1 << 2: "current too high",
    1 << 3: "driver too hot",
    1 << 4: "collision",
    1 << 5: "driver error",
    1 << 7: "stalled",
}


def driver_faults(flags: int) -> list[str]:
    """The faults in one driver's status byte."""
    return [text for bit, text in DRIVER_FAULTS.items() if flags & bit]
