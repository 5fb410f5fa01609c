"""The table as a gymnasium environment, and its configuration for `lerobot-eval --env.type=fake_tabletop`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from fake_scene import ACTION_DIM, CAMERAS, SIZE, STATE, TASK, Log, pictures
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.envs.configs import EnvConfig

ID = "fake_worlds/Tabletop-v0"


class Tabletop(gym.Env):
    """An episode of a few steps that always succeeds."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 20}
    task = "tabletop"

    def __init__(self, log_folder: str, episode_length: int, task_description: str) -> None:
        self.task_description = task_description
        self._max_episode_steps = episode_length
        self._log = Log(log_folder)
        self.render_mode = "rgb_array"
        seen = gym.spaces.Dict({name: gym.spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8) for name in CAMERAS})
        state = gym.spaces.Box(-10, 10, STATE.shape, np.float32)
        self.observation_space = gym.spaces.Dict({"pixels": seen, "agent_pos": state})
        self.action_space = gym.spaces.Box(-10, 10, (ACTION_DIM,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed)
        self._seed, self._step = seed or 0, 0
        self._log.write({"seed": seed})
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        self._log.write(np.asarray(action, np.float32).tolist())
        self._step += 1
        done = self._step >= self._max_episode_steps
        return self._observation(), float(done), done, False, {"is_success": done}

    def render(self) -> np.ndarray:
        return pictures(self._seed, self._step)[CAMERAS[0]]

    def _observation(self) -> dict[str, Any]:
        return {"pixels": pictures(self._seed, self._step), "agent_pos": STATE.copy()}


@EnvConfig.register_subclass("fake_tabletop")
@dataclass
class TabletopConfig(EnvConfig):
    task: str | None = "Tabletop-v0"
    fps: int = 20
    log_folder: str = "log"
    episode_length: int = 20
    task_description: str = TASK
    features: dict[str, PolicyFeature] = field(
        default_factory=lambda: {
            "action": PolicyFeature(FeatureType.ACTION, (ACTION_DIM,)),
            "agent_pos": PolicyFeature(FeatureType.STATE, STATE.shape),
            **{f"pixels/{name}": PolicyFeature(FeatureType.VISUAL, (SIZE, SIZE, 3)) for name in CAMERAS},
        }
    )
    features_map: dict[str, str] = field(
        default_factory=lambda: {
            "action": "action",
            "agent_pos": "observation.state",
            **{f"pixels/{name}": f"observation.images.{name}" for name in CAMERAS},
        }
    )

    @property
    def package_name(self) -> str:
        return "fake_worlds"

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        return {
            "log_folder": self.log_folder,
            "episode_length": self.episode_length,
            "task_description": self.task_description,
        }


gym.register(ID, entry_point=Tabletop)
