"""The real simulator: short episodes in each suite, what is fixed by a start, and bad input."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from tests.simulation import literature
from wavserve.core.errors import InvalidRequest, SimulationError
from wavserve.core.resize import Pixels
from wavserve.core.simulation import Start
from wavserve.simulation.config import SimulationConfig, process_variables
from wavserve.simulation.environment import open_environment
from wavserve.simulation.process import SimulatorProcess

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
SMALL = SimulationConfig(size=literature.SIZE)
MAX_STEPS = {"libero_spatial": 220, "libero_object": 280, "libero_goal": 300, "libero_10": 520}
WAIT = np.array([0, 0, 0, 0, 0, 0, -1.0])
UP = np.array([0, 0, 1, 0, 0, 0, -1.0])
EPISODE = Start(literature.SUITE, literature.TASK, literature.STATE, literature.SEED)


@pytest.fixture(scope="module")
def environment() -> Iterator[SimulatorProcess]:
    """One for all tests: each begins with a reset, which must not depend on the tests before."""
    with closing(open_environment(SMALL, os.environ)) as opened:
        yield opened


@pytest.mark.parametrize("suite", MAX_STEPS)
def test_an_episode_of_every_suite(environment: SimulatorProcess, suite: str) -> None:
    tasks = environment.tasks(suite)
    assert [(task.index, task.num_states, task.max_steps) for task in tasks] == [
        (index, 50, MAX_STEPS[suite]) for index in range(10)
    ]
    task = environment.reset(Start(suite, 4, 11, seed=0))
    assert task == tasks[4]
    assert task.instruction == task.instruction.lower()
    before, seen = environment.state(), environment.images()
    assert not any(environment.step(UP) for _ in range(8))
    after = environment.state()
    assert before.shape == (8,)
    assert before.dtype == np.float64
    assert 0.05 < after[2] - before[2] < 0.2, "metres, up"
    assert np.linalg.norm(after[3:6]) == pytest.approx(np.pi, abs=0.1), "radians: the hand points down"
    assert np.abs(after[6:8]) == pytest.approx([0.04, 0.04], abs=0.01), "metres: the fingers are open"
    assert seen.keys() == {"agentview", "wrist"}
    for camera, picture in environment.images().items():
        assert (picture.shape, picture.dtype) == ((literature.SIZE, literature.SIZE, 3), np.uint8)
        assert picture.std() > 10
        assert not np.array_equal(picture, seen[camera])


def test_pictures_and_states_are_those_of_the_packages_own_environment(
    environment: SimulatorProcess, tmp_path: Path
) -> None:
    """The package's observations are 2 ms older than the end of a step, so the pictures are nearly equal from then."""
    variables = process_variables(os.environ, SMALL) | {"PYTHONPATH": f"{ROOT}:{ROOT / 'service'}"}
    line = [sys.executable, "-m", "tests.simulation.literature", str(tmp_path / "seen.npz")]
    subprocess.run(line, env=variables, cwd=tmp_path, check=True, capture_output=True, timeout=600)
    environment.reset(EPISODE)
    with np.load(tmp_path / "seen.npz") as seen:
        for step in range(literature.NUM_STEPS + 1):
            if step:
                environment.step(literature.actions()[step - 1])
            state, pictures = environment.state(), environment.images()
            assert np.array_equal(state[:3], seen["robot0_eef_pos"][step])
            assert np.array_equal(state[6:], seen["robot0_gripper_qpos"][step])
            for camera, name in {"agentview": "agentview_image", "wrist": "robot0_eye_in_hand_image"}.items():
                off = [difference(pictures[camera], picture) for picture in seen[name]]
                assert int(np.argmin(off)) == step
                assert step > 0 or off[0] == 0


def difference(one: Pixels, other: Pixels) -> float:
    """Mean, of 255."""
    return float(np.abs(one.astype(int) - other).mean())


def played(environment: SimulatorProcess, start: Start, render_every: int) -> list[bytes]:
    environment.reset(start)
    seen = []
    for step, action in enumerate(np.concatenate([literature.actions(), literature.actions()[::-1]])):
        environment.step(action.astype(np.float32))
        seen += [environment.sim_state().tobytes(), environment.state().tobytes()]
        if step % render_every == 0:
            environment.images()
    return [*seen, *(picture.tobytes() for picture in environment.images().values())]


@pytest.mark.parametrize("start", [EPISODE, Start("libero_10", 2, 0, seed=1)], ids=str)
def test_a_start_and_actions_fix_every_bit_whatever_was_before(environment: SimulatorProcess, start: Start) -> None:
    """`environment` played other tasks, and this one with the gripper closed; the other process is new."""
    environment.reset(Start(start.suite, start.task, 30, seed=99))
    for _ in range(15):
        environment.step(np.array([1, 0.3, -0.6, 0.1, 0, 0.4, 1.0]))
    used = played(environment, start, render_every=4)
    with closing(open_environment(SMALL, os.environ)) as new:
        assert played(new, start, render_every=100) == used


def test_the_seed_and_the_initial_state_matter(environment: SimulatorProcess) -> None:
    def begun(state_index: int, seed: int) -> tuple[bytes, bytes]:
        environment.reset(Start(EPISODE.suite, EPISODE.task, state_index, seed))
        return environment.sim_state().tobytes(), environment.images()["agentview"].tobytes()

    first, other_seed, other_state = begun(0, 0), begun(0, 1), begun(1, 0)
    assert first[0] == other_seed[0], "the initial state has every joint"
    assert first[1] != other_seed[1], "the poses of fixtures are not part of it"
    assert first[0] != other_state[0]


def test_a_recorded_state_shows_its_picture_again(environment: SimulatorProcess) -> None:
    environment.reset(EPISODE)
    for _ in range(8):
        environment.step(UP)
    recorded, shown, state = environment.sim_state(), environment.images(), environment.state()
    environment.reset(EPISODE)
    environment.restore(recorded)
    assert np.array_equal(environment.sim_state(), recorded)
    assert environment.state() == pytest.approx(state, abs=2e-3), "the latest physics steps of 2 ms are not yet seen"
    for camera, picture in environment.images().items():
        assert difference(picture, shown[camera]) < 3


def test_without_antialiasing_pictures_differ_a_little(environment: SimulatorProcess) -> None:
    environment.reset(EPISODE)
    smooth = environment.images()["agentview"]
    with closing(open_environment(SimulationConfig(literature.SIZE, antialiasing=False), os.environ)) as plain:
        plain.reset(EPISODE)
        assert 0.0 < difference(plain.images()["agentview"], smooth) < 8.0


def test_perturbed_suites_have_the_packages_names(environment: SimulatorProcess) -> None:
    [swapped, said] = (environment.tasks(f"libero_object_{kind}") for kind in ("swap", "lan"))
    plain = environment.tasks("libero_object")
    assert [task.instruction for task in swapped] == [task.instruction for task in plain]
    assert said[0].instruction == "grab alphabet soup and put it into basket"
    assert {task.max_steps for task in (*swapped, *said)} == {280}
    environment.reset(Start("libero_object_swap", 0, 0, seed=0))
    assert not environment.step(WAIT)


@pytest.mark.parametrize(
    ("start", "text"),
    [
        (Start("libero_moon", 0, 0, 0), "suite: expected one of libero_spatial, libero_object, .*got 'libero_moon'"),
        (Start("libero_goal_env", 0, 0, 0), "suite: expected one of"),
        (Start("libero_goal", 10, 0, 0), "task: expected 0 to 9 in libero_goal, got 10"),
        (Start("libero_goal", -1, 0, 0), "task: expected 0 to 9"),
        (Start("libero_goal", 0, 50, 0), "state_index: expected one of the 50 initial states of task 0 in libero_goal"),
    ],
)
def test_a_start_that_does_not_exist_is_refused(environment: SimulatorProcess, start: Start, text: str) -> None:
    with pytest.raises(InvalidRequest, match=text):
        environment.reset(start)


@pytest.mark.parametrize("action", [np.zeros(6), np.zeros((1, 7)), np.array([0, 0, 0, 0, 0, 0, np.nan])])
def test_an_action_that_is_none_is_refused(environment: SimulatorProcess, action: np.ndarray) -> None:
    environment.reset(EPISODE)
    before = environment.sim_state()
    with pytest.raises(InvalidRequest, match="action: expected 7 finite numbers"):
        environment.step(action)
    assert np.array_equal(environment.sim_state(), before)


def test_a_state_of_another_task_is_refused(environment: SimulatorProcess) -> None:
    environment.reset(EPISODE)
    with pytest.raises(InvalidRequest, match="sim_state: expected shape"):
        environment.restore(environment.sim_state()[:-1])


def test_a_simulation_that_diverges_is_an_error_and_leaves_no_file(environment: SimulatorProcess) -> None:
    environment.reset(EPISODE)
    wild = environment.sim_state().copy()
    wild[-1] = 1e12
    environment.restore(wild)
    with pytest.raises(SimulationError, match="diverged"):
        environment.step(WAIT)
    assert not Path("MUJOCO_LOG.TXT").exists()
    environment.reset(EPISODE)
    environment.step(WAIT)


def test_no_episode_is_an_error() -> None:
    with closing(open_environment(SMALL, os.environ)) as new, pytest.raises(SimulationError, match="no episode"):
        new.step(WAIT)


def test_the_gripper_is_where_a_picture_shows_it(environment: SimulatorProcess) -> None:
    """Only the fingers move, so the pixels that change lie around the point between them."""
    environment.reset(EPISODE)
    for _ in range(10):
        environment.step(WAIT)
    before = environment.images()["agentview"].astype(int)
    for _ in range(10):
        environment.step(-WAIT)
    changed = np.argwhere(np.abs(environment.images()["agentview"] - before).sum(axis=2) > 60)
    column, row, w = environment.projections()["agentview"] @ np.append(environment.state()[:3], 1.0)
    assert w > 0
    assert np.median(changed, axis=0) == pytest.approx([row / w, column / w], abs=literature.SIZE / 20)
