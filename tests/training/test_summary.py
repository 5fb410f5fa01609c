"""`wavserve train inspect`: the table of a data set, and the drawing of its reward."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.training import synthetic
from wavserve.cli import main
from wavserve.training.dataset_format import data_file
from wavserve.training.dataset_writer import DatasetWriter
from wavserve.training.episode import Kind
from wavserve.training.summary import summaries


def test_a_data_set_is_summed_up_by_task(tmp_path: Path) -> None:
    dataset = synthetic.write(tmp_path, num_tasks=2, per_task=3, kinds=("expert", "failure", "recovery"))
    first, second, every = summaries(dataset)
    assert first.task == "3 pick up the red one"
    assert (first.num_episodes, first.kinds, first.mean_steps) == (3, (1, 1, 0, 1), 40)
    assert first.success == pytest.approx(2 / 3)
    assert (second.num_episodes, every.num_episodes, every.task) == (3, 6, "all")
    assert every.mean_bytes == np.mean([data_file(tmp_path, index).stat().st_size for index in range(6)])


def test_the_command_prints_a_table_and_draws_a_success_and_a_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    synthetic.write(tmp_path / "set", num_tasks=1, per_task=2, kinds=("expert", "failure"))
    assert main(["train", "inspect", str(tmp_path / "set"), "--plot", str(tmp_path / "reward.png")]) == 0
    printed, progress = capsys.readouterr()
    assert printed.splitlines()[0].split()[:6] == ["task", "episodes", "expert", "recovery", "policy", "failure"]
    assert printed.splitlines()[1].split()[5:] == ["one", "2", "1", "0", "0", "1", "50.0%", "40", printed.split()[-1]]
    assert progress == f"{tmp_path / 'reward.png'}: the reward of episodes 0 and 1\n"
    with Image.open(tmp_path / "reward.png") as drawn:
        assert drawn.size[0] > 800
        assert np.asarray(drawn.convert("L")).std() > 5


def test_the_drawing_shows_both_outcomes_of_one_task(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first success, 0, is of the task that never fails; the failure, 3, is of the other one, as 1 is."""
    made = synthetic.recipe()
    with DatasetWriter(tmp_path / "set", made) as writer:
        outcomes: tuple[tuple[Kind, Kind], ...] = (("expert", "expert"), ("expert", "failure"))
        for number, kinds in enumerate(outcomes):
            for task, kind in zip(made.tasks, kinds, strict=True):
                writer.add(synthetic.episode(made, task, number, kind=kind))
        writer.write_metadata()
    assert main(["train", "inspect", str(tmp_path / "set"), "--plot", str(tmp_path / "reward.png")]) == 0
    assert capsys.readouterr().err == f"{tmp_path / 'reward.png'}: the reward of episodes 1 and 3\n"


def test_a_missing_file_and_a_drawing_that_cannot_be_written_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    synthetic.write(tmp_path / "set", num_tasks=1, per_task=2, kinds=("expert", "failure"))
    assert main(["train", "inspect", str(tmp_path / "set"), "--plot", str(tmp_path / "nowhere" / "reward.png")]) == 1
    assert "--plot: expected a file that can be written, got [Errno 2]" in capsys.readouterr().err
    next((tmp_path / "set").glob("data/*/*.parquet")).unlink()
    assert main(["train", "inspect", str(tmp_path / "set")]) == 1
    assert "expected the file of an episode: No such file" in capsys.readouterr().err


def test_a_drawing_needs_both_outcomes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    synthetic.write(tmp_path / "set", num_tasks=1, per_task=1)
    assert main(["train", "inspect", str(tmp_path / "set"), "--plot", str(tmp_path / "reward.png")]) == 1
    assert "--plot: expected a data set with a failure, got none" in capsys.readouterr().err
    assert not (tmp_path / "reward.png").exists()


def test_a_folder_that_is_no_data_set_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "inspect", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"wavserve: {tmp_path}")
    assert error.count("\n") == 1


@pytest.mark.parametrize(("text", "tasks"), [("0-3", (0, 1, 2, 3)), ("2", (2,)), ("0-1,7", (0, 1, 7))])
def test_tasks_are_given_as_ranges(text: str, tasks: tuple[int, ...]) -> None:
    from wavserve.cli import build_parser

    line = ["train", "demos", "--suite", "libero_object", "--out", "x", "--tasks", text]
    assert build_parser().parse_args(line).tasks == tasks


@pytest.mark.parametrize(
    ("option", "text", "message"),
    [
        ("--tasks", "0-a", "invalid ranges value: '0-a'"),
        ("--tasks", "5-2", "invalid ranges value: '5-2'"),  # and not all tasks
        ("--seed", "-1", "invalid seed value: '-1'"),
    ],
)
def test_a_value_that_is_none_is_wrong_usage(
    option: str, text: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ending:
        main(["train", "demos", "--suite", "libero_object", "--out", "x", option, text])
    assert ending.value.code == 2
    assert message in capsys.readouterr().err
