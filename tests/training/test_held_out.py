"""The file of held-out observations: which ones it has, what counts, and what a policy is compared with."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from tests.training import synthetic
from wavserve.cli import main
from wavserve.core.errors import BundleError
from wavserve.core.spec import NormSpec
from wavserve.training import held_out
from wavserve.training.held_out import NUM_COMPARED, HeldOut, action_error, baselines, collect
from wavserve.training.source import Source, open_source

RECIPE = Path(__file__).parents[2] / "policies" / "tiny-libero" / "recipe.toml"
CHUNK = 16
NORM = NormSpec("minmax", (-1.0,) * 7, (1.0,) * 7)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """Two tasks, of which the episodes 3 and 7 of each are held out."""
    folder = tmp_path_factory.mktemp("data") / "reach"
    synthetic.write(folder, per_task=8)
    return open_source([folder], None, held_out_every=4)


@pytest.fixture(scope="module")
def collected(source: Source) -> HeldOut:
    return collect(source, num_each=4, chunk=CHUNK)


def test_observations_are_of_held_out_episodes_and_of_every_task(source: Source, collected: HeldOut) -> None:
    assert collected.instructions == tuple(np.repeat(source.instructions, 4))
    kept = [episode for index, episode in source.episodes(pictures=True) if source.is_held_out(index)]
    for jpegs, state, actions in zip(collected.jpegs, collected.state, collected.actions, strict=True):
        [(episode, index)] = [
            (each, i)
            for each in kept
            for i, step in enumerate(each.picture_steps)
            if np.array_equal(each.state[step], state) and each.pictures["agentview"][i] == jpegs["agentview"]
        ]
        step = episode.picture_steps[index]
        assert episode.pictures["wrist"][index] == jpegs["wrist"]
        np.testing.assert_array_equal(actions[:NUM_COMPARED], episode.action[step : step + NUM_COMPARED])


def test_actions_before_a_push_has_its_effect_count(collected: HeldOut) -> None:
    assert collected.is_label[:, :NUM_COMPARED].all()
    assert not collected.is_label.all(), "an episode ends, or a push comes, in some chunks"


def test_the_error_is_a_fraction_of_half_the_range(collected: HeldOut) -> None:
    assert action_error(collected.actions, collected, NORM) == 0.0
    off = collected.actions.copy()
    off[:, :NUM_COMPARED] += 0.5
    off[:, NUM_COMPARED:] += 9.0
    assert action_error(off, collected, NORM) == pytest.approx(0.5)
    assert action_error(off, collected, NormSpec("minmax", (-2.0,) * 7, (2.0,) * 7)) == pytest.approx(0.25)
    masked = dataclasses.replace(collected, is_label=collected.is_label.copy())
    masked.is_label[1:] = False
    off[1:] = 100.0
    assert action_error(off, masked, NORM) == pytest.approx(0.5)


def test_baselines_know_no_picture(collected: HeldOut) -> None:
    found = baselines(collected)
    median, again = found["the task's median action"], found["the last action again"]
    assert np.unique(median[:4], axis=0).shape == (1, CHUNK, 7)
    assert not np.array_equal(median[0], median[4])
    np.testing.assert_array_equal(again[:, 0], collected.before)
    shifted = median + 0.05
    assert action_error(median, collected, NORM) < action_error(shifted, collected, NORM)


def test_no_constant_of_a_task_errs_less_than_the_median_baseline(collected: HeldOut) -> None:
    """Actions that are not compared are far off, and must not move the baseline."""
    late = dataclasses.replace(collected, actions=collected.actions.copy())
    late.actions[:, NUM_COMPARED:] = 5.0
    least = action_error(baselines(late)["the task's median action"], late, NORM)
    for task in set(late.instructions):
        rows = np.array(late.instructions) == task
        for constant in np.unique(late.actions[rows][:, :NUM_COMPARED].reshape(-1, 7), axis=0):
            other = baselines(late)["the task's median action"]
            other[rows] = constant
            assert least <= action_error(other, late, NORM) + 1e-7


def test_the_file_gives_back_what_was_written(collected: HeldOut, tmp_path: Path) -> None:
    held_out.write(collected, tmp_path / "held-out.safetensors")
    again = held_out.read(tmp_path / "held-out.safetensors")
    assert (again.instructions, again.jpegs) == (collected.instructions, collected.jpegs)
    for name in ("state", "before", "actions", "is_label"):
        np.testing.assert_array_equal(getattr(again, name), getattr(collected, name))


@pytest.mark.parametrize("content", [b"", b"no safetensors", None])
def test_another_file_is_refused(content: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "held-out.safetensors"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(BundleError, match="expected held-out observations"):
        held_out.read(file)


def test_a_truncated_file_is_refused(collected: HeldOut, tmp_path: Path) -> None:
    file = tmp_path / "held-out.safetensors"
    held_out.write(collected, file)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(BundleError, match="expected held-out observations"):
        held_out.read(file)


def test_a_task_without_a_held_out_success_is_named(tmp_path: Path) -> None:
    synthetic.write(tmp_path / "data", per_task=4, kinds=("expert", "expert", "expert", "failure"))
    with pytest.raises(BundleError, match="expected a solved held-out episode of 'pick up the red one', found none"):
        collect(open_source([tmp_path / "data"], None, held_out_every=4), 2, CHUNK)


def test_the_command_writes_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, file = tmp_path / "data", tmp_path / "held-out.safetensors"
    synthetic.write(data, per_task=12)
    flags = ["--recipe", str(RECIPE), "--data", str(data), "--each", "3"]
    assert main(["train", "held-out", *flags, "--out", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}: 6 observations\n"
    assert len(held_out.read(file)) == 6
    assert main(["train", "held-out", *flags, "--out", str(tmp_path / "none" / "file")]) == 1
    assert "--out: expected a file that can be written" in capsys.readouterr().err
