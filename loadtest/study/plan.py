"""What a study asks: its phases, their cells, seeds and sizes, and which of them its budget allows.

Reads the committed file of a study. Knows neither the simulator nor how episodes are run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from wavserve.clients import tables
from wavserve.clients.libero.cells import Cell
from wavserve.core.errors import SettingsError
from wavserve.core.spec import Mode
from wavserve.planning.proposal import CONTROL_MODES

FEWEST_SAMPLES = 4
"""N is not lowered further."""
OFF = Cell(name="off", planner={"mode": "off"})
BLIND = Cell(name="off-blind", planner={"mode": "off"}, blind=True)
N, M = "num_video_samples", "num_value_samples"


@dataclass(frozen=True, slots=True, kw_only=True)
class Starts:
    """Where the episodes of a phase begin. All of its cells have the same starts and seeds."""

    num_trials_per_task: int
    seed: int
    shift: float = 0.0
    """0: the shipped initial states as they are"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenes:
    """For the question whether the value tells the samples of one scene apart."""

    num_scenes: int
    num_samples: int
    seed: int
    shift: float
    at_steps: tuple[int, ...]
    """control steps at which a scene is looked at, by turns; multiples of replan_steps"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """What an earlier screen chose."""

    cell: str
    """the screened cell whose options the headline takes"""
    policy_digest: str
    """of the policy that it holds for"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """The file. The screened cells stand by importance: the budget cuts at the end."""

    suite: str
    tasks: tuple[int, ...] = ()
    """empty: all"""
    replan_steps: int
    no_antialiasing: bool = False
    num_envs: int = 1
    max_hours: float
    expected_steps: int
    """of an episode, for the predicted hours"""
    screen: Starts
    screened: tuple[Cell, ...]
    chosen: Chosen | None = None
    """by an earlier screen, which is then not run again; None: the screen runs"""
    headline: Starts
    modes: tuple[Mode, ...]
    """of the headline, each with the options that the screen chose"""
    shipped: Starts
    baseline_trials_per_task: int
    """of each baseline in each phase; fewer than the phase has where that is more"""
    untrained_trials_per_task: int
    values: Scenes
    iterations: tuple[int, ...]
    """K, for time and memory"""


@dataclass(frozen=True, slots=True)
class Budget:
    """What a study may run: fixed before its first episode, so that no result changes it."""

    study_digest: str
    hours: float
    """predicted"""
    dropped: tuple[str, ...] = ()
    """screened cells that are not run"""
    max_samples: int | None = None
    """highest N of any cell; None: as the file says"""
    policy_digest: str = ""


def read_study(file: Path) -> Study:
    """Raises SettingsError naming the key."""
    study = tables.read(Study, tables.toml(file))
    names = [cell.name for cell in study.screened]
    if len(set(names)) < len(names) or not names:
        raise SettingsError(f"screened: expected cells of distinct names, got {', '.join(names) or 'none'}")
    papers = [cell.name for cell in study.screened if cell.planner.get("mode") == "paper"]
    if not papers:
        raise SettingsError("screened: expected a cell of mode paper, whose options the headline takes; got none")
    if study.chosen is not None and (cell := study.chosen.cell) not in papers:
        raise SettingsError(f"chosen.cell: expected a screened cell of mode paper, {', '.join(papers)}; got {cell}")
    if "off" not in study.modes:
        raise SettingsError("modes: expected off among them, which the others are held against")
    if odd := [step for step in study.values.at_steps if step % study.replan_steps]:
        raise SettingsError(f"values.at_steps: expected multiples of replan_steps, got {odd[0]}")
    return study


def screened_cells(study: Study, budget: Budget) -> tuple[Cell, ...]:
    """The cells of the screen, `off` first; where an earlier screen chose one, it alone is left."""
    return (OFF, *(_limited(cell, budget) for cell in _candidates(study) if cell.name not in budget.dropped))


def _candidates(study: Study) -> tuple[Cell, ...]:
    return tuple(cell for cell in study.screened if study.chosen is None or cell.name == study.chosen.cell)


def check_chosen(study: Study, policy_digest: str) -> None:
    """Raises SettingsError when it was chosen for another policy."""
    if study.chosen is not None and (known := study.chosen.policy_digest) != policy_digest:
        expected = f"{known[:12]}, which it holds for; without `chosen` the screen runs"
        raise SettingsError(f"chosen.policy_digest: expected the policy {expected}; got {policy_digest[:12]}")


def headline_cells(study: Study, chosen: Mapping[str, object]) -> tuple[Cell, ...]:
    """Every mode with the chosen options that it has."""
    others = (
        Cell(name=mode.replace("_", "-"), planner=_options(mode, chosen)) for mode in study.modes if mode != "off"
    )
    return (OFF, *others)


def _options(mode: Mode, chosen: Mapping[str, object]) -> dict[str, object]:
    """`best_of_n` has one iteration and no refit: of the chosen options it has N and M."""
    kept = {name: value for name, value in chosen.items() if mode != "best_of_n" or name in (N, M)}
    return {**kept, "mode": mode}


def fewer(starts: Starts, num_trials_per_task: int) -> Starts:
    """The first starts of each task."""
    return replace(starts, num_trials_per_task=min(num_trials_per_task, starts.num_trials_per_task))


def _limited(cell: Cell, budget: Budget) -> Cell:
    samples = cell.planner.get(N)
    if budget.max_samples is None or not isinstance(samples, int) or samples <= budget.max_samples:
        return cell
    return replace(cell, planner={**cell.planner, N: budget.max_samples})


@dataclass(frozen=True, slots=True)
class Cost:
    """What a cell's episode costs, in seconds."""

    simulator_s: float
    """everything but its plans"""
    plans_s: float


def within_budget(study: Study, digest: str, num_tasks: int, costs: Mapping[str, Cost]) -> Budget:
    """Drops screened cells from the last one, then lowers N, never episodes. `costs`: by the names of screened cells
    and `off`. Raises SettingsError when that is not enough.
    """
    budget = Budget(digest, 0.0)
    names = [cell.name for cell in _candidates(study)]
    needed = next(cell.name for cell in _candidates(study) if cell.planner.get("mode") == "paper")
    while (hours := predicted_hours(study, budget, num_tasks, costs)) > study.max_hours:
        droppable = [name for name in names if name not in budget.dropped and name != needed]
        lowered = None if study.chosen is not None else _lowered(study, budget)  # another N was not screened
        if droppable:
            budget = replace(budget, dropped=(*budget.dropped, droppable[-1]))
        elif lowered is not None:
            budget = replace(budget, max_samples=lowered)
        else:
            raise SettingsError(f"max_hours: expected at least {hours:.1f}, predicted, got {study.max_hours:g}")
    return replace(budget, hours=hours)


def _lowered(study: Study, budget: Budget) -> int | None:
    """Half of the highest N that is left; None: it is low enough."""
    samples = [cell.planner.get(N) for cell in screened_cells(study, budget)]
    highest = max((each for each in samples if isinstance(each, int)), default=0)
    return max(highest // 2, FEWEST_SAMPLES) if highest > FEWEST_SAMPLES else None


def predicted_hours(study: Study, budget: Budget, num_tasks: int, costs: Mapping[str, Cost]) -> float:
    """Hours of every phase and of the scenes.

    An episode counts as `expected_steps`, also a baseline's that fails. The headline's options are not chosen yet, so
    its modes cost what the dearest screened cell does; those that ask no model cost what `off` does.
    """
    off = _episode_s(OFF, costs["off"], budget)
    screened = {
        cell.name: _episode_s(cell, costs[cell.name], budget)
        for cell in _candidates(study)
        if cell.name not in budget.dropped
    }
    screen = 0.0 if study.chosen is not None else off + sum(screened.values())
    dearest = max(screened.values())
    modes = sum(off if mode in CONTROL_MODES else dearest for mode in study.modes if mode != "off")
    baselines = sum(
        3 * fewer(phase, study.baseline_trials_per_task).num_trials_per_task + study.untrained_trials_per_task
        for phase in (study.headline, study.shipped)
    )
    seconds = num_tasks * (
        study.screen.num_trials_per_task * screen
        + study.headline.num_trials_per_task * (off + modes)
        + study.shipped.num_trials_per_task * (off + dearest)
        + baselines * off
    )
    return (seconds / study.num_envs + study.values.num_scenes * study.values.num_samples * 2 * off) / 3600


def _episode_s(cell: Cell, cost: Cost, budget: Budget) -> float:
    asked, given = cell.planner.get(N), _limited(cell, budget).planner.get(N)
    share = given / asked if isinstance(asked, int) and isinstance(given, int) else 1.0
    return cost.simulator_s + cost.plans_s * share


def described(budget: Budget) -> str:
    """One line for people."""
    parts = [f"predicted: {budget.hours:.1f} hours"]
    if budget.dropped:
        parts.append(f"dropped: {', '.join(budget.dropped)}")
    if budget.max_samples is not None:
        parts.append(f"N at most {budget.max_samples}")
    return "; ".join(parts)


def ordered(cells: Sequence[Cell], successes: Mapping[str, int], seconds: Mapping[str, float]) -> list[Cell]:
    """The best first: most successes, then the cheapest plans, then the order of the file."""
    return sorted(cells, key=lambda cell: (-successes[cell.name], seconds[cell.name]))
