"""An episode as the literature's scripts play it, without our code: `python -m tests.simulation.literature FILE`.

Writes the observations of the package's own environment, which renders at every step, for `EPISODE` and `actions`.
"""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray

SUITE, TASK, STATE, SEED, SIZE = "libero_goal", 2, 3, 7, 64
NUM_STEPS = 6


def actions() -> NDArray[np.float64]:
    """`[NUM_STEPS, 7]`: every axis moves, and the gripper closes and opens."""
    drawn = np.random.default_rng(0).uniform(-0.8, 0.8, (NUM_STEPS, 7))
    drawn[:, 6] = np.where(np.arange(NUM_STEPS) % 4 < 2, 1.0, -1.0)
    return drawn


def main(file: str) -> None:
    from libero.libero import benchmark
    from libero.libero.envs import OffScreenRenderEnv

    suite = benchmark.get_benchmark(SUITE)()
    scene = suite.get_task_bddl_file_path(TASK)
    environment = OffScreenRenderEnv(bddl_file_name=scene, camera_heights=SIZE, camera_widths=SIZE, hard_reset=False)
    environment.seed(SEED)
    environment.reset()
    seen = [environment.set_init_state(suite.get_task_init_states(TASK)[STATE])]
    seen += [environment.step(action)[0] for action in actions()]
    names = ("agentview_image", "robot0_eye_in_hand_image", "robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos")
    np.savez(file, **{name: np.stack([each[name] for each in seen]) for name in names})


if __name__ == "__main__":
    main(sys.argv[1])
