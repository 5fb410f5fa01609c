"""Baselines that are no policy, in a scene without a simulator."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadtest.study.baselines import (
    EXPERTS,
    Baseline,
    Baselines,
    ExpertActor,
    MeanDemonstrations,
    mean_commands,
    mean_demonstration,
    play,
)
from loadtest.study.plan import OFF, Starts, Study, read_study
from loadtest.study.runs import joined
from tests.training import synthetic
from tests.training.fake_scene import SUITE, TASKS, FakeScene, Vector
from wavserve.clients.libero.episodes import Episode
from wavserve.clients.libero.records import Run
from wavserve.core.errors import BundleError, InvalidRequest, SimulationError, SimulatorDied
from wavserve.core.simulation import Environment, Layout, Poses, TaskInfo
from wavserve.training.demos.expert import Expert, Phase

STARTS = Starts(num_trials_per_task=2, seed=2, shift=0.01)


@pytest.fixture
def study() -> Study:
    return replace(read_study(Path("policies/tiny-libero/study.toml")), suite=SUITE, tasks=(0,), num_envs=1)


def test_the_expert_goes_on_record_as_a_policy_does(study: Study, tmp_path: Path) -> None:
    opened: list[FakeScene] = []

    def opener() -> FakeScene:
        opened.append(FakeScene())
        return opened[-1]

    run = Baselines(study, opener).run(tmp_path / "expert", STARTS, EXPERTS)
    assert [(one.cell, one.success, one.state_index) for one in run.records] == [
        ("expert", True, 0),
        ("expert", True, 1),
    ]
    assert [start for scene in opened for start in scene.starts] == [one.start for one in run.records]
    again = Baselines(study, opener).run(tmp_path / "expert", STARTS, EXPERTS)
    assert again == run
    assert sum(len(scene.starts) for scene in opened) == 2, "what is on record is not run again"


class Recording(FakeScene):
    """Keeps the commands of all episodes, settling steps included."""

    def __init__(self) -> None:
        super().__init__()
        self.commands: list[Vector] = []

    def step(self, action: Any) -> bool:
        self.commands.append(np.array(action))
        return super().step(action)


class Unwieldy(FakeScene):
    """From the second start on, the box is too large for the hand."""

    def layout(self) -> Layout:
        layout = super().layout()
        if len(self.starts) > 1:
            layout.boxes[0, 1] = 0.3
        return layout


def test_an_expert_without_a_grasp_has_failed(study: Study, tmp_path: Path) -> None:
    opened = Unwieldy()
    run = Baselines(study, lambda: opened).run(tmp_path / "expert", STARTS, EXPERTS)
    assert [(one.success, one.num_steps, one.failure) for one in run.records] == [
        (True, run.records[0].num_steps, ""),
        (False, 0, "no grasp of box fits the hand"),
    ]


class Clueless(Expert):
    """Finds no grasp after the object has slipped."""

    def act(self, poses: Poses) -> Vector:
        if self.phase > Phase.HOVER:
            raise SimulationError("no grasp of box fits the hand")
        return super().act(poses)


def test_an_expert_that_loses_the_object_for_good_has_failed() -> None:
    def clueless(scene: Environment, task: TaskInfo) -> ExpertActor:
        assert isinstance(scene, FakeScene)
        return ExpertActor(scene, Clueless(scene.layout(), scene.poses()))

    episode = Episode(OFF, TASKS[0], 0, seed=1)
    result = play(clueless, FakeScene(), episode, settling_steps=2)
    assert (result.success, result.failure) == (False, "no grasp of box fits the hand")
    assert 0 < result.num_steps == len(result.sim_states) - 1
    with pytest.raises(SimulatorDied):
        play(clueless, FakeScene(dies_at=3), episode, settling_steps=2)


def test_the_mean_demonstration_is_played_without_looking(study: Study, tmp_path: Path) -> None:
    commands = np.array([[0.0, 0.0, 0.1 * step, 0.0, 0.0, 0.0, -1.0 if step < 2 else 1.0] for step in range(3)])
    mean, scene = MeanDemonstrations({(SUITE, 0): commands}), Recording()
    run = Baselines(study, lambda: scene).run(tmp_path / "mean", STARTS, Baseline("mean", mean, mean.digest))
    assert [(one.success, one.num_steps) for one in run.records] == [(False, 200)] * 2
    assert scene.num_renders == 0
    for episode in range(2):
        settled = np.array(scene.commands[episode * 210 : (episode + 1) * 210])[10:]
        assert np.array_equal(settled[:3], commands)
        assert (settled[3:] == [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]).all(), "then it stands still, its gripper closed"


def test_a_mean_demonstration_needs_the_experts_success_in_each_task(tmp_path: Path) -> None:
    data = synthetic.write(tmp_path, num_tasks=2, per_task=2, kinds=("expert", "failure"))
    known = [replace(TASKS[0], suite="fake_reach", index=index) for index in (3, 4)]
    found = mean_demonstration(data, known)
    assert isinstance(found.acts, MeanDemonstrations)
    assert set(found.acts.commands) == {("fake_reach", 3), ("fake_reach", 4)}
    with pytest.raises(BundleError, match=f"expected an episode of {SUITE} task 0 that the expert solved, got none"):
        mean_demonstration(data, [*known, TASKS[0]])


def test_other_demonstrations_are_another_baseline(study: Study, tmp_path: Path) -> None:
    one, other = (MeanDemonstrations({(SUITE, 0): np.full((3, 7), height)}) for height in (0.1, 0.2))
    assert one.digest == MeanDemonstrations(dict(one.commands)).digest
    Baselines(study, FakeScene).run(tmp_path / "mean", STARTS, Baseline("mean", one, one.digest))
    with pytest.raises(InvalidRequest, match="policy_digest"):
        Baselines(study, FakeScene).run(tmp_path / "mean", STARTS, Baseline("mean", other, other.digest))


def test_the_mean_of_demonstrations_by_hand() -> None:
    rows = [np.full((length, 7), value) for length, value in ((4, 1.0), (3, 0.0), (1, -1.0))]
    mean = mean_commands(rows)
    assert mean.shape == (3, 7), "as long as half of them last"
    assert mean[:, 0] == pytest.approx([0.0, 0.5, 0.5])
    assert mean[:, 6].tolist() == [-1.0, 1.0, 1.0]


def test_runs_of_equal_starts_are_joined(study: Study, tmp_path: Path) -> None:
    one = Baselines(study, FakeScene).run(tmp_path / "expert", STARTS, EXPERTS)
    cell = replace(one.config.cells[0], name=OFF.name)
    other = Run(replace(one.config, cells=(cell,)), tuple(replace(each, cell=OFF.name) for each in one.records))
    both = joined([other, one])
    assert [each.name for each in both.config.cells] == ["off", "expert"]
    assert len(both.records) == 4
