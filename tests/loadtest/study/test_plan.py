"""What a study asks, and what its budget cuts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from loadtest.study.plan import (
    BLIND,
    OFF,
    Budget,
    Chosen,
    Cost,
    Starts,
    Study,
    check_chosen,
    headline_cells,
    ordered,
    predicted_hours,
    read_study,
    screened_cells,
    within_budget,
)
from loadtest.study.runs import as_toml
from wavserve.bundle import bundle
from wavserve.clients.libero.cells import Cell
from wavserve.clients.libero.options import cells_of, read_options
from wavserve.core.errors import SettingsError
from wavserve.core.options import merge_options
from wavserve.core.spec import PlannerBounds, PlannerConfig

FILE = Path("policies/tiny-libero/study.toml")
CELLS = tuple(
    Cell(name=name, planner={"mode": "paper", "num_iterations": k, "num_video_samples": n})
    for name, k, n in (("base", 3, 8), ("k1", 1, 8), ("n16", 3, 16))
)


@pytest.fixture
def study() -> Study:
    starts = Starts(num_trials_per_task=1, seed=1, shift=0.03)
    small = replace(read_study(FILE), screened=CELLS, chosen=None, screen=starts, headline=starts, shipped=starts)
    scenes = replace(small.values, num_scenes=0)
    few = replace(small, baseline_trials_per_task=5, untrained_trials_per_task=1)
    return replace(few, modes=("off", "paper"), num_envs=1, values=scenes)


COSTS = {"off": Cost(3600.0, 0.0), "base": Cost(3600.0, 3600.0), "k1": Cost(3600.0, 0.0), "n16": Cost(3600.0, 7200.0)}
"""Seconds, so that hours are easy to count."""


def test_the_committed_study_asks_what_a_policy_takes() -> None:
    study = replace(read_study(FILE), chosen=None)
    cells = [*screened_cells(study, Budget("", 0.0)), *headline_cells(study, study.screened[0].planner)]
    for cell in cells:
        merge_options(PlannerConfig(), PlannerBounds(), dict(cell.planner))
    assert OFF in cells
    seeds = {starts.seed for starts in (study.screen, study.headline, study.values)}
    assert len(seeds) == 3, "what is chosen on some starts is not reported on them"
    assert study.screen.num_trials_per_task * 10 == 30
    assert study.headline.num_trials_per_task * 10 == 150
    assert (study.shipped.num_trials_per_task, study.shipped.shift) == (50, 0.0)


def test_hours_are_those_of_every_phase(study: Study) -> None:
    """A task: screen off 1, base 2, k1 1, n16 3; headline and shipped each off, blind and two baselines 4, the dearest
    3; untrained 1 each."""
    assert predicted_hours(study, Budget("", 0.0), 2, COSTS) == pytest.approx(2 * (7 + 7 + 7 + 2))


def test_a_cell_that_is_chosen_already_is_not_screened_again(study: Study) -> None:
    """A task: no screen; headline and shipped each 4 and the dearest 2, which is the chosen cell; untrained 1 each."""
    known = replace(study, chosen=Chosen(cell="base", policy_digest="p"))
    budget = within_budget(replace(known, max_hours=14.0), "digest", 1, COSTS)
    assert (budget.hours, budget.dropped) == (pytest.approx(2 * 6 + 2), ())
    assert screened_cells(known, budget) == (OFF, CELLS[0])
    with pytest.raises(SettingsError, match="max_hours: expected at least 14"):
        within_budget(replace(known, max_hours=13.0), "digest", 1, COSTS)
    check_chosen(known, "p")
    check_chosen(read_study(FILE), bundle.digest(FILE.parent))
    with pytest.raises(SettingsError, match=r"chosen.policy_digest: expected the policy p, .*; got q"):
        check_chosen(known, "q")


def test_baselines_have_their_own_number_of_episodes_where_a_phase_has_more(study: Study) -> None:
    """A task: as above, and of the headline three episodes more of off and the dearest, one of each baseline."""
    more = replace(study, headline=replace(study.headline, num_trials_per_task=4), baseline_trials_per_task=2)
    assert predicted_hours(more, Budget("", 0.0), 1, COSTS) == pytest.approx(23 + 3 * (1 + 3) + 3)


def test_a_mode_that_asks_no_model_costs_what_no_planning_does(study: Study) -> None:
    more = replace(study, modes=("off", "paper", "random_scores", "fixed_shrink"))
    budget = Budget("", 0.0)
    assert predicted_hours(more, budget, 1, COSTS) - predicted_hours(study, budget, 1, COSTS) == pytest.approx(2.0)


def test_a_budget_drops_the_last_cells_then_lowers_n_and_never_episodes(study: Study) -> None:
    def within(hours: float) -> Budget:
        return within_budget(replace(study, max_hours=hours), "digest", 1, COSTS)

    assert within(23.0) == Budget("digest", pytest.approx(23.0))  # type: ignore[arg-type]
    assert within(22.0).dropped == ("n16",), "the last one, and with it the dearest"
    assert within(17.5).dropped == ("n16", "k1")
    lowered = within(16.0)
    assert (lowered.dropped, lowered.max_samples) == (("n16", "k1"), 4)
    [off, base] = screened_cells(study, lowered)
    assert (off.name, base.planner["num_video_samples"]) == ("off", 4)
    with pytest.raises(SettingsError, match=r"max_hours: expected at least 15\.5, predicted, got 15"):
        within(15.0)


def test_a_run_of_a_study_is_a_run_of_the_command(study: Study, tmp_path: Path) -> None:
    cells = (OFF, BLIND, replace(CELLS[0], planner={**CELLS[0].planner, "warm_start": True, "smoothing": 0.5}))
    file = tmp_path / "run.toml"
    file.write_text(as_toml(study, study.screen, cells))
    options = read_options({}, file)
    assert cells_of(options) == cells
    assert (options.suite, options.tasks, options.shift, options.seed) == (("libero_object",), (), 0.03, 1)


def test_ties_go_to_cheaper_plans() -> None:
    successes, seconds = {"base": 9, "k1": 9, "n16": 8}, {"base": 2.0, "k1": 1.0, "n16": 0.5}
    assert [cell.name for cell in ordered(CELLS, successes, seconds)] == ["k1", "base", "n16"]


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ('mode = "paper"', 'mode = "mean"', "screened: expected a cell of mode paper"),
        ('"off", ', "", "modes: expected off among them"),
        ('cell = "k1"', 'cell = "mean"', "chosen.cell: expected a screened cell of mode paper, base, less-smoothing"),
        ("at_steps = [0, 24", "at_steps = [0, 25", "values.at_steps: expected multiples of replan_steps, got 25"),
        ('name = "k1"', 'name = "base"', "screened: expected cells of distinct names"),
        ("max_hours", "max_houres", "max_houres: unknown key; did you mean max_hours"),
    ],
)
def test_a_study_that_cannot_be_meant_is_refused(tmp_path: Path, before: str, after: str, words: str) -> None:
    file = tmp_path / "study.toml"
    file.write_text(FILE.read_text().replace(before, after))
    with pytest.raises(SettingsError, match=words):
        read_study(file)
