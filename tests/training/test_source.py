"""Several data sets as one source: their order, their tasks, their digest, and those that do not fit each other."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from tests.training import synthetic
from wavserve.core.errors import BundleError
from wavserve.training.dataset_format import RECIPE_FILE, DatasetRecipe, TaskEntry, data_file
from wavserve.training.dataset_writer import DatasetWriter
from wavserve.training.source import Source, open_source


def written(folder: Path, recipe: DatasetRecipe, per_task: int = 2) -> Path:
    with DatasetWriter(folder, recipe) as writer:
        for number in range(per_task):
            for task in recipe.tasks:
                writer.add(synthetic.episode(recipe, task, number))
        writer.write_metadata()
    return folder


@pytest.fixture
def first(tmp_path: Path) -> Path:
    return written(tmp_path / "first", synthetic.recipe(seed=0))


def numbered(source: Source) -> list[tuple[int, int, int]]:
    """Seed, task and number of each episode in order."""
    infos = [episode.info for _, episode in source.episodes(pictures=False)]
    return [(info.seed - info.number, source.task(info), info.number) for info in infos]


def test_episodes_of_one_data_set_come_after_those_of_another(first: Path, tmp_path: Path) -> None:
    second = written(tmp_path / "second", synthetic.recipe(seed=50), per_task=3)
    source = open_source([first, second], None, held_out_every=3)
    assert source.nums == (4, 6)
    both = [(0, task, number) for number in range(2) for task in range(2)]
    assert numbered(source) == [*both, *((50, task, number) for number in range(3) for task in range(2))]
    assert [index for index in range(10) if source.is_held_out(index)] == [8, 9]
    assert source.digest() != open_source([second, first], None, 3).digest()


def test_growth_changes_nothing_for_those_who_count(first: Path, tmp_path: Path) -> None:
    """Of neither data set: else the second one's episodes would get other places."""
    second = written(tmp_path / "second", synthetic.recipe(seed=50))
    before = open_source([first, second], None, 3)
    for folder, recipe in ((first, synthetic.recipe(seed=0)), (second, synthetic.recipe(seed=50))):
        with DatasetWriter(folder, recipe) as writer:
            writer.add(synthetic.episode(recipe, recipe.tasks[0], 2))
            writer.write_metadata()
    after = open_source([first, second], before.nums, 3)
    assert (after.digest(), numbered(after)) == (before.digest(), numbered(before))
    assert open_source([first, second], None, 3).nums == (5, 5)


def test_one_data_set_has_the_digest_that_runs_began_with(first: Path) -> None:
    digest = hashlib.sha256((first / RECIPE_FILE).read_bytes())
    for index in range(4):
        digest.update(hashlib.sha256(data_file(first, index).read_bytes()).hexdigest().encode())
    assert open_source([first], None, 3).digest() == digest.hexdigest()


def test_tasks_of_several_data_sets_keep_their_places(first: Path, tmp_path: Path) -> None:
    """A recovery set may have fewer tasks, and another suite has tasks of its own."""
    fewer = synthetic.recipe(seed=50)
    fewer = replace(fewer, tasks=fewer.tasks[1:])
    other = replace(synthetic.recipe(1, seed=90), suite="fake_push", tasks=(TaskEntry(3, "push the red one"),))
    folders = [first, written(tmp_path / "fewer", fewer), written(tmp_path / "other", other)]
    source = open_source(folders, None, 3)
    assert source.instructions == (*synthetic.INSTRUCTIONS[:2], "push the red one")
    assert [task for _, task, _ in numbered(source)] == [0, 1, 0, 1, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 64}, "expected size = 32, as .*first has, got 64"),
        ({"antialiasing": False}, "expected antialiasing = True, as .*first has, got False"),
        ({"picture_every": 2}, "expected picture_every = 4, as .*first has, got 2"),
        ({"versions": {"simulator": "fake 2"}}, "expected versions = .*fake 1.*, got .*fake 2"),
        ({"settings": {"reward.object": 0.9, "reward.solved": 0.5}}, r"expected reward\.object = 0\.5, as .*got 0\.9"),
    ],
)
def test_data_sets_that_do_not_fit_each_other_are_refused(
    changes: dict[str, object], message: str, first: Path, tmp_path: Path
) -> None:
    other = written(tmp_path / "other", replace(synthetic.recipe(seed=50), **changes))  # type: ignore[arg-type]
    with pytest.raises(BundleError, match=f"other: {message}"):
        open_source([first, other], None, 3)


def test_what_only_starts_and_policies_depend_on_may_differ(first: Path, tmp_path: Path) -> None:
    recipe = synthetic.recipe(seed=50)
    other = replace(recipe, settings={**recipe.settings, "policy": "tiny 0123", "recording.takeover.alone": 0.5})
    assert open_source([first, written(tmp_path / "other", other)], None, 3).nums == (4, 4)


def test_two_instructions_for_a_task_are_refused(first: Path, tmp_path: Path) -> None:
    recipe = synthetic.recipe(1, seed=50)
    other = written(tmp_path / "other", replace(recipe, tasks=(TaskEntry(3, "lift the red one"),)))
    with pytest.raises(BundleError, match=r"the instruction of fake_reach task 3, got 'lift the red one'"):
        open_source([first, other], None, 3)


def test_an_episode_counts_once(first: Path, tmp_path: Path) -> None:
    for copy in (first, written(tmp_path / "copy", synthetic.recipe(seed=0))):
        with pytest.raises(BundleError, match=r"expected other episodes than .*first has, got the same"):
            open_source([first, copy], None, 3)


def test_an_episode_whose_file_is_missing_is_named(first: Path) -> None:
    """As after a copy that was interrupted."""
    file = sorted(first.glob("data/*/*.parquet"))[2]
    file.unlink()
    with pytest.raises(BundleError, match=f"{file.name}: expected the file of an episode: No such file"):
        open_source([first], None, 3)


def test_too_few_episodes_are_named(first: Path, tmp_path: Path) -> None:
    second = written(tmp_path / "second", synthetic.recipe(seed=50))
    with pytest.raises(BundleError, match="second: expected at least 5 episodes, found 4"):
        open_source([first, second], (4, 5), 3)
