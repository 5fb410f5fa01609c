"""LIBERO's robot: names of its cameras, of its state and of its actions, and its control rate.

Data only. A policy, a data set and an evaluation are checked against it.
"""

from __future__ import annotations

CAMERAS = ("agentview", "wrist")
CONTROL_HZ = 20.0
STATE_NAMES = (
    *("eef_x", "eef_y", "eef_z", "eef_axis_angle_x", "eef_axis_angle_y", "eef_axis_angle_z"),
    *("gripper_left", "gripper_right"),
)
ACTION_NAMES = (
    *("delta_x", "delta_y", "delta_z", "delta_axis_angle_x", "delta_axis_angle_y", "delta_axis_angle_z"),
    "gripper",
)
STILL = (0.0,) * 6 + (-1.0,)
"""The command of the settling steps: stand still with an open gripper."""
