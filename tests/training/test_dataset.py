"""The data set on disk: what was written is read, an interruption changes nothing, and bad files are named."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.training import synthetic
from wavserve.core.errors import BundleError, InvalidRequest
from wavserve.training.dataset import open_dataset, picture
from wavserve.training.dataset_format import EPISODES_FILE, INFO_FILE, RECIPE_FILE, STATS_FILE, data_file
from wavserve.training.dataset_meta import DatasetStats
from wavserve.training.dataset_writer import DatasetWriter
from wavserve.training.episode import Episode

ROOT = Path(__file__).parents[2]


def assert_equal(one: Episode, other: Episode) -> None:
    assert one.info == other.info
    for name in Episode.__slots__:
        a, b = getattr(one, name), getattr(other, name)
        if isinstance(a, np.ndarray):
            assert a.dtype == b.dtype, name
            assert np.array_equal(a, b), name
    assert one.pictures == other.pictures


def test_what_was_written_is_read(tmp_path: Path) -> None:
    dataset = synthetic.write(tmp_path, num_tasks=2, per_task=2, kinds=("expert", "failure"))
    made = synthetic.recipe(2)
    assert dataset.recipe == made
    assert [(info.task, info.number, info.kind) for info in dataset.infos] == [
        (3, 0, "expert"),
        (4, 0, "expert"),
        (3, 1, "failure"),
        (4, 1, "failure"),
    ]
    for read, info in zip(dataset.episodes(), dataset.infos, strict=True):
        task = next(task for task in made.tasks if task.index == info.task)
        assert_equal(read, synthetic.episode(made, task, info.number, kind=info.kind))
    without = dataset.read(1, pictures=False)
    assert not without.pictures
    assert np.array_equal(without.picture_steps, np.arange(0, 40, 4))


def test_each_picture_is_stored_once(tmp_path: Path) -> None:
    dataset = synthetic.write(tmp_path, num_tasks=1, per_task=1, num_steps=200, size=128)
    pictures = sum(len(jpeg) for camera in dataset.read(0).pictures.values() for jpeg in camera)
    assert data_file(tmp_path, 0).stat().st_size < pictures + 100_000
    shown = pq.read_table(data_file(tmp_path, 0)).column("observation.images.wrist").to_pylist()
    assert [cell["bytes"] for cell in shown[4:8]] == [dataset.read(0).pictures["wrist"][1]] * 4
    assert picture(shown[0]["bytes"]).shape == (128, 128, 3)


def test_a_disturbance_is_told_by_the_executed_action(tmp_path: Path) -> None:
    read = synthetic.write(tmp_path, num_tasks=1, per_task=1).read(0)
    assert (np.flatnonzero(read.disturbance() > 0.25) == np.arange(10, 15)).all()
    assert read.picture_ages().tolist() == [step % 4 for step in range(40)]


def test_readers_see_whole_metadata_while_a_data_set_grows(tmp_path: Path) -> None:
    made = synthetic.recipe(1)
    with DatasetWriter(tmp_path, made) as writer:
        writer.add(synthetic.episode(made, made.tasks[0], 0))
        writer.write_metadata()
        writer.add(synthetic.episode(made, made.tasks[0], 1))
        assert len(open_dataset(tmp_path)) == 1
        writer.write_metadata()
        assert len(open_dataset(tmp_path)) == 2


WRITING = """
import sys
from pathlib import Path
from tests.training import synthetic
from wavserve.training.dataset_writer import DatasetWriter
made = synthetic.recipe(1)
with DatasetWriter(Path(sys.argv[1]), made) as writer:
    print(len(writer.infos), flush=True)
    for number in range(len(writer.infos), 60):
        writer.add(synthetic.episode(made, made.tasks[0], number))
        print(number, flush=True)
        if number % 3 == 2:
            writer.write_metadata()
    writer.write_metadata()
"""


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_a_writer_that_was_killed_at_any_moment_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    kills = np.random.default_rng(0).uniform(0.0, 0.05, 6)
    killed = tmp_path / "killed"
    command = [sys.executable, "-c", WRITING, str(killed)]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'service'}"}
    for kill_after_s in kills:
        with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()  # it has begun
            try:
                process.wait(kill_after_s)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
    whole = tmp_path / "whole"
    for folder in (killed, whole):
        subprocess.run([*command[:-1], str(folder)], cwd=ROOT, env=environment, check=True, capture_output=True)
    assert contents(killed) == contents(whole)
    assert len(open_dataset(killed)) == 60


def test_a_folder_has_one_writer_and_one_recipe(tmp_path: Path) -> None:
    made = synthetic.recipe(1)
    with DatasetWriter(tmp_path, made), pytest.raises(InvalidRequest, match="no other program writes"):
        DatasetWriter(tmp_path, made)
    with pytest.raises(InvalidRequest, match=r"--out: expected size = 32, as the data set in this folder has.*got 64"):
        DatasetWriter(tmp_path, replace(made, size=64))
    (tmp_path / RECIPE_FILE).write_text("{}")
    with pytest.raises(BundleError, match="expected a data set's recipe"):
        DatasetWriter(tmp_path, made)


def edited(file: Path, **changes: Any) -> None:
    table = json.loads(file.read_text())
    file.write_text(json.dumps(table | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fps": 10}, "fps: expected 20, got 10"),
        ({"codebase_version": "v2.1"}, "codebase_version: expected v3.0, got 'v2.1'"),
        ({"features": {"observation.images.top": {}}}, "cameras: expected agentview, wrist, got 'top'"),
        ({"features": None}, "cameras: expected agentview, wrist, got ''"),
    ],
)
def test_another_data_set_is_refused_by_what_differs(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    synthetic.write(tmp_path, num_tasks=1, per_task=1)
    edited(tmp_path / INFO_FILE, **changes)
    with pytest.raises(BundleError) as refusal:
        open_dataset(tmp_path)
    assert refusal.value.message == f"{tmp_path / INFO_FILE}: {message}"


@pytest.mark.parametrize("name", ["observation.state", "action", "observation.images.wrist"])
def test_other_dimensions_are_refused_by_their_column(tmp_path: Path, name: str) -> None:
    synthetic.write(tmp_path, num_tasks=1, per_task=1)
    info = json.loads((tmp_path / INFO_FILE).read_text())
    info["features"][name]["shape"] = [14]
    (tmp_path / INFO_FILE).write_text(json.dumps(info))
    with pytest.raises(BundleError, match=rf"{name}\.shape: expected \[.*\], got \[14\]"):
        open_dataset(tmp_path)


def test_a_number_that_is_not_finite_is_refused_by_its_row(tmp_path: Path) -> None:
    dataset = synthetic.write(tmp_path, num_tasks=1, per_task=1)
    file = data_file(tmp_path, 0)
    table = pq.read_table(file)
    flat = table.column("action").combine_chunks().flatten().to_numpy().copy()
    flat[7 * 5 + 2] = np.nan
    bad = pa.FixedSizeListArray.from_arrays(pa.array(flat), 7)
    pq.write_table(table.set_column(table.column_names.index("action"), "action", bad), file)
    with pytest.raises(BundleError, match=r"file-000\.parquet: action: expected finite numbers, got nan in row 5"):
        dataset.read(0)
    made = synthetic.recipe(1)
    with DatasetWriter(tmp_path / "new", made) as writer:
        broken = synthetic.episode(made, made.tasks[0], 0)
        broken.state[3, 1] = np.inf
        with pytest.raises(BundleError, match=r"observation\.state: expected finite numbers"):
            writer.add(broken)


def test_an_episode_without_a_picture_at_its_start_is_refused(tmp_path: Path) -> None:
    """Else its first steps would be shown its last picture."""
    dataset = synthetic.write(tmp_path, num_tasks=1, per_task=1)
    file, name = data_file(tmp_path, 0), "observation.picture_age"
    table = pq.read_table(file)
    ages = table.column(name).to_numpy().copy()
    ages[0] = 1
    pq.write_table(table.set_column(table.column_names.index(name), name, pa.array(ages)), file)
    with pytest.raises(BundleError, match=r"picture_age: expected a picture in the first row, got age \[1\]"):
        dataset.read(0)


def test_columns_of_another_type_or_width_in_a_file_are_refused(tmp_path: Path) -> None:
    dataset = synthetic.write(tmp_path, num_tasks=1, per_task=1)
    file = data_file(tmp_path, 0)
    table = pq.read_table(file)
    wide = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(40 * 14, np.float32)), 14)
    pq.write_table(table.set_column(table.column_names.index("action"), "action", wide), file)
    with pytest.raises(BundleError, match=r"action: expected float32 \[7\], got float32 \[14\]"):
        dataset.read(0)
    pq.write_table(table.slice(0, 20), file)
    with pytest.raises(BundleError, match="expected 40 rows, got 20"):
        dataset.read(0)
    pq.write_table(table.drop_columns(["return"]), file)
    with pytest.raises(BundleError, match="expected a column return, found none"):
        dataset.read(0)


@pytest.mark.parametrize("name", ["data", EPISODES_FILE, INFO_FILE, RECIPE_FILE])
def test_a_truncated_file_is_named(tmp_path: Path, name: str) -> None:
    synthetic.write(tmp_path, num_tasks=1, per_task=1)
    file = data_file(tmp_path, 0) if name == "data" else tmp_path / name
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(BundleError) as refusal:
        open_dataset(tmp_path).read(0)
    assert str(file) in refusal.value.message


def test_an_episode_of_an_unknown_task_is_refused(tmp_path: Path) -> None:
    synthetic.write(tmp_path, num_tasks=2, per_task=1)
    table = json.loads((tmp_path / RECIPE_FILE).read_text())
    (tmp_path / RECIPE_FILE).write_text(json.dumps({**table, "tasks": table["tasks"][:1]}))
    with pytest.raises(BundleError, match="expected one of fake_reach 3 as the task of episode 1, got fake_reach 4"):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": "32"}, "size: expected a whole number, got '32'"),
        ({"colour": 1}, "colour: expected no such key, got 1"),
    ],
)
def test_a_recipe_with_other_entries_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    synthetic.write(tmp_path, num_tasks=1, per_task=1)
    edited(tmp_path / RECIPE_FILE, **changes)
    with pytest.raises(BundleError, match=rf"expected a data set's recipe: recipe\.json: {message}"):
        open_dataset(tmp_path)


def test_facts_of_an_episode_that_are_none_are_refused(tmp_path: Path) -> None:
    synthetic.write(tmp_path, num_tasks=1, per_task=1)
    file = tmp_path / EPISODES_FILE
    table = pq.read_table(file)
    facts = json.loads(table.column("wavserve")[0].as_py()) | {"num_steps": "40"}
    at = table.column_names.index("wavserve")
    pq.write_table(table.set_column(at, "wavserve", pa.array([json.dumps(facts)])), file)
    with pytest.raises(BundleError, match="expected the facts of an episode"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("cell", [None, {"bytes": None, "path": "elsewhere.png"}])
def test_a_picture_that_is_not_there_is_named(tmp_path: Path, cell: object) -> None:
    dataset = synthetic.write(tmp_path, num_tasks=1, per_task=1)
    file, name = data_file(tmp_path, 0), "observation.images.wrist"
    table = pq.read_table(file)
    cells = table.column(name).to_pylist()
    cells[8] = cell
    kind = table.schema.field(name).type
    pq.write_table(table.set_column(table.column_names.index(name), name, pa.array(cells, kind)), file)
    with pytest.raises(BundleError, match=rf"{name}: expected the bytes of a picture in row 8, got "):
        dataset.read(0)
    assert dataset.read(0, pictures=False).info.num_steps == 40


def test_metadata_read_each_episode_once_for_its_vectors(tmp_path: Path) -> None:
    """They are made many times while a data set grows: else the time would grow with its square."""
    dataset = synthetic.write(tmp_path, num_tasks=1, per_task=6)
    read: list[int] = []

    def reading(index: int, pictures: bool) -> Episode:
        if not pictures:
            read.append(index)
        return dataset.read(index, pictures)

    growing = DatasetStats(reading)
    tables = [growing.table(num) for num in (2, 4, 6)]
    assert read == [0, 1, 2, 3, 4, 5]
    assert tables[-1] == DatasetStats(dataset.read).table(6)


def test_a_folder_that_is_no_data_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"nowhere: expected the folder of a data set, got none"):
        open_dataset(tmp_path / "nowhere")
    with pytest.raises(BundleError, match=f"{RECIPE_FILE}: expected a JSON file of a data set"):
        open_dataset(tmp_path)


def test_the_statistics_are_those_of_all_rows(tmp_path: Path) -> None:
    dataset = synthetic.write(tmp_path)
    stats = json.loads((tmp_path / STATS_FILE).read_text())
    rows = np.concatenate([each.action for each in dataset.episodes()]).astype(np.float64)
    assert np.allclose(stats["action"]["mean"], rows.mean(0))
    assert np.allclose(stats["action"]["q99"], np.quantile(rows, 0.99, axis=0))
    assert stats["action"]["count"] == [240]
    assert np.shape(stats["observation.images.wrist"]["mean"]) == (3, 1, 1)
    assert 0 < stats["observation.images.wrist"]["mean"][0][0][0] < 1
