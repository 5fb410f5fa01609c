"""LIBERO in this process: scenes, control steps, pictures on demand.

Importing it imports the simulator, and a program makes one environment only: the simulator's random numbers are global.
Knows nothing of processes.
"""

from __future__ import annotations

import logging
import random
from importlib import metadata
from typing import Any

import mujoco
import numpy as np
from libero.libero.envs.env_wrapper import ControlEnv
from numpy.typing import NDArray
from OpenGL.GL import GL_RENDERER, GL_VERSION, glGetString
from robosuite.utils.transform_utils import quat2axisangle

from wavserve.core.errors import InvalidRequest, SimulationDiverged, SimulationError
from wavserve.core.resize import Pixels
from wavserve.core.simulation import Layout, Poses, Start, TaskInfo
from wavserve.simulation.config import SimulationConfig
from wavserve.simulation.requirements import PACKAGES
from wavserve.simulation.suites import Suites
from wavserve.simulation.truth import SceneTruth
from wavserve.simulation.variation import varied

CAMERAS = {"agentview": "agentview", "wrist": "robot0_eye_in_hand"}
"""Our names and the simulator's."""
ACTION_DIM = 7
_log = logging.getLogger(__name__)
_DIVERGED = (mujoco.mjtWarning.mjWARN_BADQPOS, mujoco.mjtWarning.mjWARN_BADQVEL, mujoco.mjtWarning.mjWARN_BADQACC)


class LiberoEnvironment:
    """See `core.simulation.Environment`. A reset to another task builds its scene, which takes seconds."""

    def __init__(self, config: SimulationConfig) -> None:
        mujoco.set_mju_user_warning(_log.warning)  # by default it writes a file where the program runs
        self._config = config
        self._renderer = f"{config.renderer} {renderer_name()}"
        self._suites = Suites()
        self._scene: tuple[str, int] | None = None
        self._control: Any = None
        self._observation: Any = None
        self._known_truth: SceneTruth | None = None

    def tasks(self, suite: str) -> tuple[TaskInfo, ...]:
        return self._suites.tasks(suite)

    def reset(self, start: Start) -> TaskInfo:
        task = self._suites.task(start)
        self._observation = None
        if self._scene != (start.suite, start.task):
            self._build(start)
        self._control.seed(start.seed)  # before the reset, which draws the poses of the fixtures
        self._control.reset()
        for robot in self._control.robots:
            robot.gripper.current_action = np.zeros(robot.gripper.dof)  # a reset leaves the last episode's
        self._observation = self._control.set_init_state(self._first_state(start))
        return task

    def _first_state(self, start: Start) -> NDArray[np.float64]:
        """Raises SimulationError naming a start that cannot be varied."""
        state = self._suites.initial_state(start)
        if start.variation is None:
            return state
        try:
            return varied(state, self._control, start.variation)
        except SimulationError as error:
            at = f"{start.suite} task {start.task}, state {start.state_index}"
            raise SimulationError(f"{at}: {error.message}") from error

    def step(self, action: NDArray[np.floating[Any]]) -> bool:
        self._check_reset()
        if action.shape != (ACTION_DIM,) or not np.isfinite(action).all():
            raise InvalidRequest("action", f"{ACTION_DIM} finite numbers", f"shape {action.shape}: {action}")
        self._observation, _, solved, _ = self._control.step(action.astype(np.float64))
        self._check_finite()
        return bool(solved)

    def images(self) -> dict[str, Pixels]:
        self._check_reset()
        size = self._config.size
        render = self._control.sim.render
        shown = {ours: render(camera_name=theirs, width=size, height=size) for ours, theirs in CAMERAS.items()}
        return {camera: np.ascontiguousarray(picture) for camera, picture in shown.items()}

    def projections(self) -> dict[str, NDArray[np.float64]]:
        self._check_reset()
        return {ours: self._projection(theirs) for ours, theirs in CAMERAS.items()}

    def _projection(self, camera: str) -> NDArray[np.float64]:
        """The simulator's camera looks along its -z, with x to the right and y up. A captured picture begins at its
        lowest row."""
        sim, half = self._control.sim, self._config.size / 2
        index = sim.model.camera_name2id(camera)
        focal = half / np.tan(np.radians(sim.model.cam_fovy[index]) / 2)
        turn, place = sim.data.cam_xmat[index].reshape(3, 3), sim.data.cam_xpos[index]
        into_pixels = np.array([[focal, 0.0, -half], [0.0, focal, -half], [0.0, 0.0, -1.0]])
        return np.asarray(into_pixels @ np.column_stack([turn.T, -turn.T @ place]))

    def state(self) -> NDArray[np.float64]:
        self._check_reset()
        seen = self._observation
        turn = quat2axisangle(seen["robot0_eef_quat"].copy())  # it writes into its argument
        return np.concatenate([seen["robot0_eef_pos"], turn, seen["robot0_gripper_qpos"]])

    def sim_state(self) -> NDArray[np.float64]:
        self._check_reset()
        return np.asarray(self._control.get_sim_state())

    def restore(self, sim_state: NDArray[np.float64]) -> None:
        self._check_reset()
        expected = self.sim_state().shape
        if sim_state.shape != expected:
            raise InvalidRequest("sim_state", f"shape {expected}", f"shape {sim_state.shape}")
        self._observation = self._control.set_init_state(sim_state)

    def layout(self) -> Layout:
        self._check_reset()
        return self._truth.layout

    def poses(self) -> Poses:
        self._check_reset()
        return self._truth.poses()

    @property
    def _truth(self) -> SceneTruth:
        if self._known_truth is None:
            self._known_truth = SceneTruth(self._control)
        return self._known_truth

    def versions(self) -> dict[str, str]:
        return {**{package: metadata.version(package) for package in PACKAGES}, "renderer": self._renderer}

    def close(self) -> None:
        if self._control is not None:
            self._control.close()
        self._control = self._scene = self._observation = self._known_truth = None

    def _build(self, start: Start) -> None:
        self.close()
        random.seed(0)
        np.random.seed(0)  # what a scene draws must not depend on what came before
        size = self._config.size
        self._control = ControlEnv(
            bddl_file_name=str(self._suites.scene_file(start)),
            use_camera_obs=False,
            has_offscreen_renderer=True,
            camera_heights=size,
            camera_widths=size,
            hard_reset=False,
            ignore_done=True,  # an episode ends when its user says so
        )
        if not self._config.antialiasing:
            self._render_plainly()
        self._scene = (start.suite, start.task)

    def _render_plainly(self) -> None:
        """The number of samples is an attribute of the model, read when its rendering context is made."""
        self._control.sim.model.vis.quality.offsamples = 0
        self._control.sim._render_context_offscreen._set_mujoco_context_and_buffers()

    def _check_reset(self) -> None:
        if self._observation is None:
            raise SimulationError("no episode: call `reset` first")

    def _check_finite(self) -> None:
        """The physics engine repairs a state that is not finite, and goes on with another one."""
        warnings = self._control.sim.data._data.warning
        if any(warnings[kind].number for kind in _DIVERGED):
            self._observation = None
            raise SimulationDiverged("the simulation diverged")


def renderer_name() -> str:
    """What the GL library says of itself: pictures depend on it. Needs a moment without a rendering context."""
    context = mujoco.GLContext(64, 64)
    context.make_current()
    try:
        return ", ".join(glGetString(name).decode() for name in (GL_RENDERER, GL_VERSION))
    finally:
        context.free()
