"""Samples of a scene, and what their predicted values say of their returns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from loadtest.study.plan import Scenes, Study, read_study
from loadtest.study.ranks import bootstrapped, calibration, ranks, spearman, verdicts
from loadtest.study.scenes import Player, Sample, Witness, chunk_return, read_samples
from tests.clients.chunks import chunk_of
from tests.clients.libero.sources import policy_info
from tests.training.fake_scene import SUITE, TASKS, FakeScene
from wavserve.clients.libero.plan_source import EpisodePlan
from wavserve.core.libero import STILL
from wavserve.core.messages import ActionChunk, PolicyInfo
from wavserve.core.simulation import Start
from wavserve.core.spec import NormSpec
from wavserve.training.demos.protocol import Disturbances, RecordingConfig
from wavserve.training.demos.recording import record
from wavserve.training.demos.reference import goal_pictures

SCENES = Scenes(num_scenes=2, num_samples=3, seed=3, shift=0.01, at_steps=(0, 4))


class Source:
    """Moves by its seed, and predicts how far. `asked`: of all sources together."""

    def __init__(self, options: Mapping[str, object], asked: list[tuple[str, int, int]]) -> None:
        self._mode, self._asked = str(options["mode"]), asked
        assert options["num_iterations"] == 0

    def begin(self, instruction: str) -> None:
        self._sequence = -1

    def plan(self, request: EpisodePlan) -> ActionChunk:
        self._sequence += 1
        self._asked.append((self._mode, request.control_step, request.seed))
        away = np.random.default_rng(request.seed).uniform(0.1, 1.0)
        actions: NDArray[np.float32] = np.tile(np.float32([away, 0, 0, 0, 0, 0, -1]), (16, 1))
        chunk = chunk_of(actions, request.control_step, self._sequence, dt_ns=50_000_000, epoch=0, session_id="s")
        value = -away if self._mode == "mean" else away
        return replace(chunk, receipt=replace(chunk.receipt, value_estimate=float(value)))

    def policy(self) -> PolicyInfo:
        return replace(policy_info(), horizon=16)

    def close(self) -> None: ...


@pytest.fixture
def study() -> Study:
    file = Path("policies/tiny-libero/study.toml")
    return replace(read_study(file), suite=SUITE, tasks=(0, 1), replan_steps=4, values=SCENES)


def test_samples_of_a_scene_differ_in_one_plan(study: Study, tmp_path: Path) -> None:
    asked: list[tuple[str, int, int]] = []
    file = tmp_path / "scenes.jsonl"
    samples = Player(study, FakeScene(), 16, lambda options: Source(options, asked)).play(file, lambda _: None)
    assert [(one.scene, one.number, one.at_step, one.task) for one in samples] == [
        *((0, number, 0, 0) for number in range(3)),
        *((1, number, 4, 1) for number in range(3)),
    ]
    whole = [ask for ask in asked if ask[0] == "paper"]
    first = [seed for _, step, seed in whole if step == 0]
    assert len(set(first[:3])) == 3, "the plan of scene 0"
    assert len(set(first[3:])) == 1, "scene 1 is a later plan"
    assert len({seed for _, step, seed in whole[-150:] if step == 4}) == 3
    for step in (8, 12, 100):
        seeds = [seed for _, at, seed in whole if at == step]
        assert len(set(seeds[:3])) == len(set(seeds[3:])) == 1, "equal seeds before and after it"
    assert all(one.predicted["mean"] == -one.predicted["paper"] for one in samples), "both scores are of the same plan"
    assert len({one.achieved for one in samples}) == 6


def test_what_is_on_file_is_not_played_again(study: Study, tmp_path: Path) -> None:
    asked: list[tuple[str, int, int]] = []
    file = tmp_path / "scenes.jsonl"

    def play() -> list[Sample]:
        return Player(study, FakeScene(), 16, lambda options: Source(options, asked)).play(file, lambda _: None)

    samples = play()
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])  # killed while it wrote the last line
    asked.clear()
    assert play() == samples
    assert file.read_bytes() == whole
    assert len({seed for mode, step, seed in asked if step == 4}) == 1, "one sample was missing"
    asked.clear()
    assert play() == samples == read_samples(file)
    assert not asked


def test_a_return_is_what_a_data_set_has_of_the_same_commands() -> None:
    """A recorded success goes on for some steps, in which the hand lets go. Its last reward counts for ever."""
    scene, start = FakeScene(), Start(SUITE, 0, 1, seed=5)
    rules = RecordingConfig(settling_steps=(10, 10), disturbances=Disturbances(share=0.0))
    goals = goal_pictures(scene, TASKS[0], 0, rules)
    recorded = record(scene, start, 0, goals, rules)
    assert recorded.info.success
    witness = Witness(scene, tail_steps=rules.tail_steps)
    witness.reset(start)
    for _ in range(10):
        witness.step(np.array(STILL))
    ended = []
    for step, action in enumerate(recorded.executed_action):
        if step % rules.picture_every == 0:
            witness.images()
        assert witness.solved_before(step + 10) == recorded.solved[:step].any()
        ended.append(witness.step(action))
    assert ended == [False] * (len(ended) - 1) + [True], "it ends where the recording did"
    np.testing.assert_allclose(witness.returns(goals, 10), recorded.returns, atol=1e-6)


def test_a_sample_achieves_the_mean_return_of_its_chunk() -> None:
    """As the score of mode `mean` is the mean over the chunk's tokens."""
    returns = np.float32([0.0, 0.1, 0.2, 0.3, 0.5])
    assert chunk_return(returns, 1, 3) == pytest.approx(0.2)
    assert chunk_return(returns, 3, 4) == pytest.approx((0.3 + 3 * 0.5) / 4), "the last return counts on"
    assert chunk_return(returns, 9, 2) == pytest.approx(0.5), "it was over before"


def test_each_task_is_looked_at_at_every_step_by_turns(study: Study, tmp_path: Path) -> None:
    scenes = replace(SCENES, num_scenes=4, num_samples=1)
    player = Player(replace(study, values=scenes), FakeScene(), 16, lambda options: Source(options, []))
    samples = player.play(tmp_path / "scenes.jsonl", lambda _: None)
    assert {(one.task, one.at_step) for one in samples} == {(0, 0), (0, 4), (1, 0), (1, 4)}


def samples_of(scores: Mapping[str, list[list[float]]], returns: list[list[float]]) -> list[Sample]:
    return [
        Sample(
            scene=scene,
            number=number,
            task=0,
            state_index=0,
            at_step=0,
            predicted={score: rows[scene][number] for score, rows in scores.items()},
            achieved=achieved,
            success=True,
        )
        for scene, row in enumerate(returns)
        for number, achieved in enumerate(row)
    ]


def test_a_score_that_orders_the_samples_gains_what_is_possible() -> None:
    returns = [[0.1, 0.3, 0.2], [0.5, 0.4, 0.9]]
    wrong = [[-value for value in row] for row in returns]
    right, reversed_ = verdicts(samples_of({"mean": returns, "paper": wrong}, returns))
    assert right.rank_correlation is not None
    assert (right.rank_correlation.value, right.gain) == (pytest.approx(1.0), right.possible_gain)
    assert reversed_.rank_correlation is not None
    assert reversed_.gain is not None
    assert reversed_.rank_correlation.value == pytest.approx(-1.0)
    assert reversed_.gain.value == pytest.approx(((0.1 - 0.2) + (0.4 - 0.6)) / 2)
    assert right.over_scenes == pytest.approx(1.0)
    assert right.spread_of_returns == pytest.approx((0.1 + np.std([0.5, 0.4, 0.9], ddof=1)) / 2)


def test_scenes_that_were_over_and_scores_that_do_not_vary_say_nothing() -> None:
    over = [
        replace(each, predicted={}) for each in samples_of({"mean": [[1.0, 2.0]], "paper": [[1.0, 2.0]]}, [[0.1, 0.2]])
    ]
    assert [(one.rank_correlation, one.gain) for one in verdicts(over)] == [(None, None)] * 2
    flat = verdicts(samples_of({"mean": [[1.0, 1.0]], "paper": [[1.0, 2.0]]}, [[0.1, 0.2]]))
    assert [one.rank_correlation is None for one in flat] == [True, False]


def test_a_calibration_has_bins_of_equal_size() -> None:
    values = [float(value) for value in range(12)]
    samples = samples_of({"mean": [values], "paper": [values]}, [[value / 10 for value in values]])
    bins = calibration(samples, None, num_bins=5)
    assert [each.num for each in bins] == [2, 2, 3, 2, 3]
    assert (bins[0].predicted, bins[0].achieved, bins[0].successes) == (0.5, pytest.approx(0.05), 1.0)
    assert {each.predicted_return for each in bins} == {None}
    assert calibration([], None) == []


def test_a_prediction_is_told_as_a_return_where_the_bundle_says_how() -> None:
    """Of a reward and a return with mean 1 and 2, and deviations 3 and 4. Symlog of 1 is ln 2."""
    norm = NormSpec("meanstd", (1.0, 2.0), (3.0, 4.0))
    scores = {"mean": [[math.log(2.0), 0.0]], "paper": [[0.0, 0.0]]}
    [one] = calibration(samples_of(scores, [[0.5, 0.5]]), norm, num_bins=1)
    assert one.predicted_return == pytest.approx((2.0 + 4.0 + 2.0) / 2, abs=1e-4)


def test_ranks_and_their_correlation_by_hand() -> None:
    assert ranks(np.array([10.0, 20.0, 20.0, 5.0])).tolist() == [2.0, 3.5, 3.5, 1.0]
    # 1 - 6 * (1 + 1 + 0 + 4 + 4) / (5 * 24): squares of the differences of ranks, without ties
    assert spearman(np.array([1.0, 2, 3, 4, 5]), np.array([2.0, 1, 3, 8, 5.5])) == pytest.approx(0.8)
    assert np.isnan(spearman(np.array([1.0, 1.0]), np.array([1.0, 2.0])))


def test_an_interval_of_equal_scenes_has_no_width() -> None:
    interval = bootstrapped([0.5, 0.5, 0.5])
    assert interval is not None
    assert (interval.low, interval.value, interval.high, interval.num) == (0.5, 0.5, 0.5, 3)
    wide = bootstrapped([0.0, 1.0] * 50)
    assert wide is not None
    assert wide.low == pytest.approx(0.4, abs=0.02)
    assert wide.high == pytest.approx(0.6, abs=0.02)
