"""The arm as a robot of LeRobot, for `lerobot-rollout --robot.type=fake_arm`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fake_scene import ACTION_DIM, CAMERAS, SIZE, STATE, Log, pictures
from lerobot.robots import Robot, RobotConfig


@RobotConfig.register_subclass("fake_arm")
@dataclass(kw_only=True)
class FakeArmConfig(RobotConfig):
    log_folder: str = "log"


class FakeArm(Robot):
    """Eight numbers that never change, and seven that it is told."""

    config_class = FakeArmConfig
    name = "fake_arm"

    def __init__(self, config: FakeArmConfig) -> None:
        super().__init__(config)
        self._log = Log(config.log_folder)
        self._is_connected = False
        self._num_observations = 0

    @property
    def observation_features(self) -> dict[str, Any]:
        joints = {f"x{index}.pos": float for index in range(len(STATE))}
        return {**joints, **dict.fromkeys(CAMERAS, (SIZE, SIZE, 3))}

    @property
    def action_features(self) -> dict[str, Any]:
        return {f"x{index}.pos": float for index in range(ACTION_DIM)}

    @property
    def is_connected(self) -> bool:
        return self._is_connected

    @property
    def is_calibrated(self) -> bool:
        return True

    def connect(self, calibrate: bool = True) -> None:
        self._is_connected = True

    def calibrate(self) -> None:
        """There is nothing to calibrate."""

    def configure(self) -> None:
        """There is nothing to configure."""

    def get_observation(self) -> dict[str, Any]:
        self._num_observations += 1
        joints = {f"x{index}.pos": float(number) for index, number in enumerate(STATE)}
        return {**joints, **pictures(0, self._num_observations)}

    def send_action(self, action: dict[str, Any]) -> dict[str, Any]:
        self._log.write([float(action[name]) for name in self.action_features])
        return action

    def disconnect(self) -> None:
        self._is_connected = False
