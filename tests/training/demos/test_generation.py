"""Generation: order, resumption, several simulators, and simulators that die."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.training.demos.test_recording import CLEAN, recorded
from tests.training.fake_scene import SUITE, TASKS, FakeScene
from tests.training.test_dataset import contents
from wavserve.core.errors import InvalidRequest, SimulatorDied
from wavserve.core.simulation import TaskInfo
from wavserve.core.starts import shifted_seed
from wavserve.training.dataset import open_dataset
from wavserve.training.demos.generation import Generation
from wavserve.training.demos.progress import Progress
from wavserve.training.demos.protocol import RecordingConfig
from wavserve.training.demos.request import Request, assignments
from wavserve.training.demos.starts import reference_start, training_start
from wavserve.training.episode import Episode

REQUEST = Request(
    suite=SUITE, tasks=(), num_episodes=3, seed=0, antialiasing=True, config=RecordingConfig(size=32, max_steps=60)
)


def quiet(_: Episode | None, num_done: int, total: int) -> None:
    assert 0 <= num_done <= total


def generated(
    folder: Path,
    request: Request = REQUEST,
    num_workers: int = 1,
    open_scene: Callable[[], FakeScene] = FakeScene,
    listener: Callable[[Episode | None, int, int], None] = quiet,
) -> dict[str, bytes]:
    Generation(request, open_scene, num_workers).run(folder, listener)
    return contents(folder)


def test_a_beginning_has_some_of_each_task() -> None:
    assigned = assignments(TASKS, 7)
    assert [(each.task.index, each.number) for each in assigned] == [
        *((task, number) for task in (0, 1) for number in range(5)),
        *((task, number) for task in (0, 1) for number in (5, 6)),
    ]


def test_a_data_set_is_generated_and_read(tmp_path: Path) -> None:
    generated(tmp_path)
    dataset = open_dataset(tmp_path)
    assert [(info.task, info.number, info.instruction) for info in dataset.infos] == [
        (task, number, TASKS[task].instruction) for task in (0, 1) for number in range(3)
    ]
    assert dataset.recipe.versions == {"simulator": "fake 1", "renderer": "fake"}
    assert dataset.recipe.settings["variation.object_m"] == 0.03
    assert dataset.recipe.settings["reward.solved"] == 0.3
    assert len({info.seed for info in dataset.infos}) == 6
    assert dataset.read(0).reward_terms.shape == (dataset.infos[0].num_steps, len(dataset.recipe.reward_terms))


class Ended(Exception):
    pass


@pytest.mark.parametrize("num_workers", [1, 2])
@pytest.mark.parametrize("ends_after", [1, 3, 5])
def test_one_that_ended_early_goes_on_to_the_same_bytes(tmp_path: Path, ends_after: int, num_workers: int) -> None:
    def end(_: Episode | None, num_done: int, total: int) -> None:
        if num_done == ends_after:
            raise Ended

    with pytest.raises(Ended):
        generated(tmp_path / "early", listener=end)
    assert len(open_dataset(tmp_path / "early")) == ends_after, "what is there can be read"
    resumed = generated(tmp_path / "early", num_workers=num_workers)
    assert resumed == generated(tmp_path / "whole")


def test_the_number_of_simulators_changes_nothing(tmp_path: Path) -> None:
    request = replace(REQUEST, num_episodes=12)
    opened: list[FakeScene] = []

    def counted() -> FakeScene:
        opened.append(FakeScene())
        return opened[-1]

    one = generated(tmp_path / "one", request)
    three = generated(tmp_path / "three", request, num_workers=3, open_scene=counted)
    assert one == three
    assert len(opened) == 3
    assert all(scene.closed for scene in opened)


def test_more_episodes_of_the_same_recipe_are_added(tmp_path: Path) -> None:
    generated(tmp_path, replace(REQUEST, num_episodes=2))
    before = open_dataset(tmp_path)
    generated(tmp_path, replace(REQUEST, num_episodes=3))
    after = open_dataset(tmp_path)
    assert after.infos[:4] == before.infos
    assert [(info.task, info.number) for info in after.infos[4:]] == [(0, 2), (1, 2)]


def test_another_recipe_is_refused_by_what_differs(tmp_path: Path) -> None:
    generated(tmp_path, replace(REQUEST, num_episodes=1))
    other = replace(REQUEST, config=replace(REQUEST.config, tail_steps=2))
    with pytest.raises(InvalidRequest, match=r"--out: expected settings\.recording\.tail_steps = 8.*got 2"):
        generated(tmp_path, other)
    with pytest.raises(InvalidRequest, match=r"--out: expected seed = 0"):
        generated(tmp_path, replace(REQUEST, seed=1))


def test_a_simulator_that_dies_is_replaced_and_the_episode_is_the_same(tmp_path: Path) -> None:
    opened: list[FakeScene] = []

    def mortal() -> FakeScene:
        opened.append(FakeScene(dies_at=300 if not opened else None))
        return opened[-1]

    assert generated(tmp_path / "died", open_scene=mortal) == generated(tmp_path / "lived")
    assert len(opened) == 2
    assert opened[0].closed


def test_one_that_always_dies_is_an_error_and_what_is_done_stays(tmp_path: Path) -> None:
    opened: list[FakeScene] = []

    def mortal() -> FakeScene:
        opened.append(FakeScene(dies_at=500 if not opened else 0))
        return opened[-1]

    with pytest.raises(SimulatorDied):
        generated(tmp_path, open_scene=mortal)
    assert len(opened) == 3
    assert 0 < len(open_dataset(tmp_path)) < 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_episodes": 0}, "--episodes: expected at least 1, got 0"),
        ({"tasks": (2,)}, "--tasks: expected 0 to 1, the tasks of fake_pick, got 2"),
        ({"suite": "libero_moon"}, "suite: expected fake_pick, got 'libero_moon'"),
    ],
)
def test_a_wrong_request_is_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        generated(tmp_path / "new", replace(REQUEST, **changes))  # type: ignore[arg-type]
    assert refusal.value.message == message
    assert not (tmp_path / "new").exists()


def test_no_simulators_are_none() -> None:
    with pytest.raises(InvalidRequest, match="--workers: expected at least 1, got 0"):
        Generation(REQUEST, FakeScene, 0)


def test_training_evaluation_and_the_reference_share_no_start() -> None:
    task = TaskInfo("libero_object", 4, "a", "b", num_states=50, max_steps=280)
    trained = {training_start(task, number, seed=3) for number in range(500)}
    shifted = {shifted_seed(task, state, seed) for state in range(50) for seed in range(10)}
    seeds = {start.seed for start in trained}, shifted
    assert not seeds[0] & seeds[1]
    assert {seed % 3 for seed in seeds[0]} == {0}
    assert {seed % 3 for seed in seeds[1]} == {1}
    assert reference_start(task, 3, 0).seed % 3 == 2
    assert all(start.variation is not None for start in trained), "no shipped state as it is"
    assert {start.state_index for start in trained} == set(range(50))
    assert training_start(task, 0, 0) != training_start(replace(task, index=5), 0, 0)
    assert all(0 <= seed < 2**32 for seed in seeds[0] | seeds[1])


def test_progress_tells_success_and_the_time_left() -> None:
    times = iter([0.0, 10.0, 16.0, 20.0])
    lines: list[str] = []
    progress = Progress(lambda: next(times), lines.append)
    progress(None, 4, 10)
    success, failure = recorded(), recorded(replace(CLEAN, max_steps=20))
    progress(success, 5, 10)
    progress(failure, 6, 10)
    assert lines == [
        "4/10 episodes are on disk",
        f"5/10 episodes, success 100.0%, 0 min 30 s left: task 0 number 0: expert, {success.info.num_steps} steps, "
        "6.0 s",
        "6/10 episodes, success 50.0%, 0 min 20 s left: task 0 number 0: failure, 20 steps, 4.0 s",
    ]
    assert np.isfinite(success.reward).all()
