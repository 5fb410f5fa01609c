"""A simulated table and an arm for LeRobot, with the cameras and vectors of the preset `tiny`. Neither has physics.

LeRobot imports this package by `--env.discover_packages_path` and `--robot.discover_packages_path`. The arm and each
environment write what they got into a file of `log_folder`, one JSON value a line.
"""

from fake_worlds.arm import FakeArm, FakeArmConfig
from fake_worlds.tabletop import Tabletop, TabletopConfig

__all__ = ["FakeArm", "FakeArmConfig", "Tabletop", "TabletopConfig"]
