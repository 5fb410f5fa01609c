"""The fake environment keeps what `core/simulation` promises, so that tests of its users mean something."""

from __future__ import annotations

import numpy as np
import pytest

from tests.simulation.fake import SUITES, FakeEnvironment, goal_of, starts_of, toward_goal
from wavserve.core.errors import InvalidRequest, SimulatorDied
from wavserve.core.simulation import Environment, Start

START = Start("fake_reach", 1, 2, seed=7)


@pytest.mark.parametrize("start", starts_of("fake_reach"), ids=str)
def test_actions_toward_the_goal_solve_every_start(start: Start) -> None:
    environment: Environment = FakeEnvironment()
    task = environment.reset(start)
    solved = [environment.step(toward_goal(environment.state(), goal_of(start))) for _ in range(task.max_steps)]
    assert True in solved


def test_standing_still_solves_nothing() -> None:
    environment = FakeEnvironment()
    task = environment.reset(START)
    assert not any(environment.step(np.array([0, 0, 0, 0, 0, 0, 1.0])) for _ in range(task.max_steps))


def test_equal_starts_and_actions_give_equal_pictures_whatever_was_before() -> None:
    fresh, used = FakeEnvironment(), FakeEnvironment()
    used.reset(Start("fake_other", 0, 0, seed=1))
    used.step(np.ones(7))
    for environment in (fresh, used):
        environment.reset(START)
        environment.step(np.array([1, -1, 0.5, 0, 0, 0, -1]))
    assert fresh.sim_state().tobytes() == used.sim_state().tobytes()
    pictures = fresh.images(), used.images()
    for camera in ("agentview", "wrist"):
        assert np.array_equal(pictures[0][camera], pictures[1][camera])


def test_every_step_of_an_episode_has_its_own_pictures() -> None:
    environment = FakeEnvironment()
    environment.reset(START)
    seen = []
    for _ in range(4):
        environment.step(toward_goal(environment.state(), environment.goal))
        seen.append(environment.images()["agentview"].tobytes())
    assert len(set(seen)) == len(seen)


def test_a_recorded_state_shows_the_picture_again() -> None:
    environment = FakeEnvironment()
    environment.reset(START)
    environment.step(np.ones(7))
    recorded, shown = environment.sim_state(), environment.images()
    environment.reset(START)
    environment.restore(recorded)
    assert np.array_equal(environment.images()["wrist"], shown["wrist"])


@pytest.mark.parametrize(
    "start", [Start("other", 0, 0, 0), Start("fake_reach", 3, 0, 0), Start("fake_reach", 0, 5, 0)], ids=str
)
def test_a_start_that_does_not_exist_is_refused(start: Start) -> None:
    with pytest.raises(InvalidRequest):
        FakeEnvironment().reset(start)


def test_it_dies_when_told() -> None:
    environment = FakeEnvironment(fails_at_step=1)
    environment.reset(START)
    environment.step(np.zeros(7))
    with pytest.raises(SimulatorDied):
        environment.step(np.zeros(7))


def test_the_suites_differ() -> None:
    goals = [tuple(goal_of(start)) for suite in SUITES for start in starts_of(suite)]
    assert len(set(goals)) == len(goals)
