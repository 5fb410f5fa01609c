"""A whole study with runs that never took place: what one phase hands to the next."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from loadtest.study.__main__ import Work, best_of, locked
from loadtest.study.baselines import EXPERTS
from loadtest.study.pilot import costs_of
from loadtest.study.plan import BLIND, OFF, Budget, Chosen, Starts, Study, read_study
from loadtest.study.runs import Place, StudyError
from tests.clients.libero.runs import example_config, example_record, example_run
from tests.training import synthetic
from tests.training.fake_scene import SUITE, FakeScene
from wavserve.bundle import bundle
from wavserve.bundle.bundle import Bundle
from wavserve.clients.libero.cells import Cell
from wavserve.clients.libero.records import Run
from wavserve.core.errors import BundleError

FILE = Path("policies/tiny-libero/study.toml")
STARTS = Starts(num_trials_per_task=2, seed=1, shift=0.01)
SCREENED = (
    Cell(name="weak", planner={"mode": "paper", "num_iterations": 1}),
    Cell(name="strong", planner={"mode": "paper", "num_iterations": 3, "num_video_samples": 8, "smoothing": 0.5}),
    Cell(name="other", planner={"mode": "mean", "num_iterations": 5}),
)
BUDGET = Budget("d", 1.0, policy_digest=example_config().policy_digest)
FAILS = {"weak", "random-scores", "off", "off-blind"}


@dataclass
class Runs:
    """Makes up runs. `asked`: the cells of each."""

    asked: dict[str, tuple[Cell, ...]] = field(default_factory=dict)
    trials: dict[str, int] = field(default_factory=dict)

    def __call__(
        self, place: Place, study: Study, name: str, starts: Starts, cells: Sequence[Cell], *flags: str
    ) -> Run:
        self.asked[name] = tuple(cells)
        self.trials[name] = trials = starts.num_trials_per_task
        config = example_config(suites=(study.suite,), tasks=(0, 1), num_trials_per_task=trials, cells=tuple(cells))
        return example_run(config, lambda cell, suite, task, state: cell.name not in FAILS or state == 0)


@pytest.fixture
def study() -> Study:
    phases = {"screen": STARTS, "headline": replace(STARTS, seed=2), "shipped": Starts(num_trials_per_task=2, seed=7)}
    study = replace(read_study(FILE), suite=SUITE, tasks=(0,), screened=SCREENED, chosen=None, num_envs=1, **phases)  # type: ignore[arg-type]
    study = replace(study, baseline_trials_per_task=1, untrained_trials_per_task=1)
    return replace(study, modes=("off", "random_scores", "paper", "best_of_n"))


def test_what_a_phase_shows_decides_the_next_one(study: Study, tmp_path: Path) -> None:
    (tmp_path / "untrained").mkdir()
    runs = Runs()
    parts = Work(study, Place(tmp_path, "bundle", None), BUDGET, (EXPERTS,), FakeScene, runs).phases()
    assert [part.chosen for part in parts] == ["strong", "paper", ""]
    assert runs.asked["screen"] == (OFF, *SCREENED)
    headline = {cell.name: cell.planner for cell in runs.asked["headline"]}
    assert list(headline) == ["off", "random-scores", "paper", "best-of-n"]
    chosen = {"num_iterations": 3, "num_video_samples": 8, "smoothing": 0.5}
    assert headline["paper"] == {"mode": "paper", **chosen}, "not those of another mode, though it did as well"
    assert headline["random-scores"] == {"mode": "random_scores", **chosen}
    assert headline["best-of-n"] == {"mode": "best_of_n", "num_video_samples": 8}, "it has one iteration and no refit"
    names = list(runs.asked)
    assert names.index("screen") < names.index("shipped") < names.index("headline"), "it waits for no choice"
    assert runs.asked["shipped"] == (OFF,)
    assert runs.asked["shipped-best"] == (Cell(name="paper", planner=headline["paper"]),)
    assert [cell.name for cell in parts[2].run.config.cells][:2] == ["off", "paper"]
    assert runs.asked["shipped-off-blind"] == (BLIND,)
    assert [runs.trials[name] for name in ("shipped", "shipped-best")] == [2, 2]
    assert [runs.trials[name] for name in ("shipped-off-blind", "shipped-untrained")] == [1, 1]
    for part in parts[1:]:
        names = [cell.name for cell in part.run.config.cells]
        assert names[-3:] == ["off-blind", "expert", "untrained"]
    experts = [record for record in parts[1].run.records if record.cell == "expert"]
    assert [(one.success, one.shift) for one in experts] == [(True, 0.01)]
    assert "## Shipped starts" in (tmp_path / "so-far.md").read_text()
    assert len(json.loads((tmp_path / "so-far.json").read_bytes())["parts"]) == 3


def test_what_an_earlier_screen_chose_goes_into_the_headline(study: Study, tmp_path: Path) -> None:
    (tmp_path / "untrained").mkdir()
    runs, known = Runs(), replace(study, chosen=Chosen(cell="weak", policy_digest="p"))
    parts = Work(known, Place(tmp_path, "bundle", None), BUDGET, (EXPERTS,), FakeScene, runs).phases()
    assert [part.title for part in parts] == ["Headline, shifted starts", "Shipped starts"]
    assert "screen" not in runs.asked
    [paper] = [cell for cell in runs.asked["headline"] if cell.name == "paper"]
    assert paper.planner == SCREENED[0].planner
    told = "Options of the headline: those of `weak`, which an earlier screen chose."
    assert told in (tmp_path / "so-far.md").read_text().splitlines()


def test_a_study_without_planning_asks_for_no_best_mode(study: Study, tmp_path: Path) -> None:
    (tmp_path / "untrained").mkdir()
    runs = Runs()
    Work(replace(study, modes=("off",)), Place(tmp_path, "bundle", None), BUDGET, (EXPERTS,), FakeScene, runs).phases()
    assert "shipped" in runs.asked
    assert "shipped-best" not in runs.asked


def test_a_service_that_has_got_another_policy_ends_the_study(study: Study, tmp_path: Path) -> None:
    class Updated(Runs):
        """After the screen another policy is served."""

        def __call__(self, place: Place, study: Study, name: str, *others: Any) -> Run:
            run = super().__call__(place, study, name, *others)
            return run if name == "screen" else replace(run, config=replace(run.config, policy_digest="q" * 64))

    work = Work(study, Place(tmp_path, "bundle", "x:1"), BUDGET, (EXPERTS,), FakeScene, Updated())
    with pytest.raises(StudyError, match=r"expected the policy .* all along, got qqqqqqqqqqqq; remove .*shipped"):
        work.phases()


def test_a_folder_takes_one_study_at_a_time_and_only_one(tmp_path: Path) -> None:
    (tmp_path / "budget.json").write_text(json.dumps(asdict(Budget("another", 1.0))))
    with pytest.raises(StudyError, match="expected the study another, got"):
        Work.of(FILE, Place(tmp_path, "bundle", None), None)
    with locked(tmp_path), pytest.raises(StudyError, match="another study writes it"), locked(tmp_path):
        pass


def test_a_folder_takes_one_policy_only(tmp_path: Path, tiny: Bundle) -> None:
    """What is no run of the command, such as scenes and times, would else be of another policy than the runs."""
    digest = hashlib.sha256(FILE.read_bytes()).hexdigest()
    place = Place(tmp_path, str(tiny.folder), None)
    (tmp_path / "budget.json").write_text(json.dumps(asdict(Budget(digest, 1.0, policy_digest="another"))))
    with pytest.raises(StudyError, match="expected the policy another, got"):
        Work.of(FILE, place, None)
    known = Budget(digest, 1.0, policy_digest=bundle.digest(tiny.folder))
    (tmp_path / "budget.json").write_text(json.dumps(asdict(known)))
    assert Work.of(FILE, place, None).budget == known
    (tmp_path / "headline-mean-demonstration").mkdir()
    with pytest.raises(StudyError, match="--data: expected a folder, as when headline-mean-demonstration began"):
        Work.of(FILE, place, None)


def test_demonstrations_that_are_not_there_are_missed_before_the_first_episode(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="expected the folder of a data set, got none"):
        Work.of(FILE, Place(tmp_path, "bundle", None), tmp_path / "nothing")
    assert not list(tmp_path.iterdir())


def test_demonstrations_of_other_tasks_are_refused_before_the_first_episode(tmp_path: Path) -> None:
    file, data = tmp_path / "study.toml", tmp_path / "data"
    file.write_text(FILE.read_text().replace('suite = "libero_object"', f'suite = "{SUITE}"'))
    synthetic.write(data, num_tasks=1, per_task=1)
    place = Place(tmp_path / "out", "bundle", None)
    with pytest.raises(BundleError, match=f"expected an episode of {SUITE} task 0 that the expert solved, got none"):
        Work.of(file, place, data, FakeScene)
    assert not place.folder.exists()


def test_a_prediction_alone_fixes_no_budget(study: Study, tmp_path: Path) -> None:
    work = Work(study, Place(tmp_path, "bundle", None), Budget("d", 1.0), (EXPERTS,), FakeScene, Runs())
    assert not list(tmp_path.iterdir())
    work.fix_budget()
    assert json.loads((tmp_path / "budget.json").read_bytes())["study_digest"] == "d"


def test_a_pilot_tells_what_episodes_cost(study: Study) -> None:
    """40 steps with 5 plans. The first cell's time has the building of a scene in it, and `weak` is compiled first."""
    cells = (OFF, SCREENED[0], *SCREENED)
    config = example_config(cells=cells)
    timed = tuple(zip(cells, ((9.0, 100.0), (42.0, 8000.0), (6.0, 800.0), (6.0, 800.0), (4.5, 500.0)), strict=True))
    records = tuple(
        example_record(config, cell, num_steps=40, num_plans=5, wall={"episode_s": episode_s, "plan_ms_p50": plan_ms})
        for cell, (episode_s, plan_ms) in timed
    )
    found = costs_of(replace(study, expected_steps=160, replan_steps=8), Run(config, records))
    expected = pytest.approx((6.0 - 4.0) / 40 * 160)
    assert [cost.simulator_s for cost in found.values()] == [expected] * 4
    assert (found["off"].plans_s, found["weak"].plans_s) == (pytest.approx(2.0), pytest.approx(16.0))


def test_the_best_cell_is_the_cheapest_of_the_most_successful() -> None:
    config = example_config(suites=(SUITE,), cells=(OFF, *SCREENED))
    run = example_run(config, lambda cell, suite, task, state: cell.name != "weak")
    cheap = tuple(
        replace(record, wall={"plan_ms_p50": 10.0 if record.cell == "other" else 20.0}) for record in run.records
    )
    assert best_of(Run(config, cheap), list(SCREENED)).name == "other"
