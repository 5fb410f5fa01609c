"""What the records of a run say: success by cell and suite, and what a change of one thing between cells does.

Knows no page. Cells of a run have the same starts and seeds, so their differences are taken start by start.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from wavserve.clients.libero.cells import Cell
from wavserve.clients.libero.records import EpisodeRecord, Run
from wavserve.clients.libero.report.statistics import Estimate, Pairs, mean, paired_difference, success_rate

SUITE_TITLES = {
    "libero_spatial": "Spatial",
    "libero_object": "Object",
    "libero_goal": "Goal",
    "libero_10": "Long",
}
"""As the literature's tables name and order them."""
_SYMBOLS = {"num_iterations": "K", "num_video_samples": "N", "num_value_samples": "M"}

StartKey = tuple[str, int, int, int, float]
"""suite, task, state index, seed, shift in m: what says where everything stands"""


@dataclass(frozen=True, slots=True)
class Difference:
    """Two cells that differ in one thing, and what that does to success."""

    cell: Cell
    reference: Cell
    suites: Mapping[str, Estimate]
    average: Estimate


@dataclass(frozen=True, slots=True)
class Summary:
    """A run's records by cell and suite."""

    run: Run
    suites: tuple[str, ...]
    """of which there are records, in the literature's order"""
    by_cell: Mapping[str, tuple[EpisodeRecord, ...]]

    @classmethod
    def of(cls, run: Run) -> Summary:
        known = [*SUITE_TITLES, *run.config.suites]
        suites = sorted({record.suite for record in run.records}, key=known.index)
        names = [cell.name for cell in run.config.cells]
        records = {name: tuple(one for one in run.records if one.cell == name) for name in names}
        return cls(run, tuple(suites), records)

    @property
    def cells(self) -> tuple[Cell, ...]:
        return self.run.config.cells

    def rate(self, cell: Cell, suite: str) -> Estimate:
        """Success in one suite."""
        return _rate(one for one in self.by_cell[cell.name] if one.suite == suite)

    def average(self, cell: Cell) -> Estimate:
        """Mean of the suites, each with the same weight; NaN where a suite has no episode."""
        return mean([self.rate(cell, suite) for suite in self.suites])

    def difference(self, cell: Cell, reference: Cell) -> Difference:
        """Success of a cell minus that of another one, start by start."""
        mine, theirs = by_start(self.by_cell[cell.name]), by_start(self.by_cell[reference.name])
        suites = {suite: paired_difference(pairs_of(mine, theirs, suite)) for suite in self.suites}
        return Difference(cell, reference, suites, mean(list(suites.values())))

    def differences(self) -> list[Difference]:
        """Of each cell to the one that it is best held against."""
        found = ((cell, reference_of(cell, self.cells)) for cell in self.cells)
        return [self.difference(cell, reference) for cell, reference in found if reference is not None]

    def num_missing(self, cell: Cell) -> int:
        """Starts that another cell has and this one lacks, as in a run that was stopped."""
        return self.num_starts - len(by_start(self.by_cell[cell.name]))

    @property
    def num_starts(self) -> int:
        """Of all cells together."""
        return len({start for records in self.by_cell.values() for start in by_start(records)})

    def tasks(self) -> list[tuple[str, int, str]]:
        """Suite, index and name of each task that was evaluated."""
        found = {(record.suite, record.task): record.task_name for record in self.run.records}
        order = sorted(found, key=lambda one: (self.suites.index(one[0]), one[1]))
        return [(suite, task, found[suite, task]) for suite, task in order]

    def task_counts(self, cell: Cell, suite: str, task: int) -> tuple[int, int]:
        """Successes and episodes of one task."""
        counts = Counter(one.success for one in self.by_cell[cell.name] if (one.suite, one.task) == (suite, task))
        return counts[True], counts.total()


def by_start(records: Iterable[EpisodeRecord]) -> dict[StartKey, EpisodeRecord]:
    """The episodes of one cell by where they began."""
    return {(one.suite, one.task, one.state_index, one.seed, one.shift): one for one in records}


def pairs_of(a: Mapping[StartKey, EpisodeRecord], b: Mapping[StartKey, EpisodeRecord], suite: str) -> Pairs:
    """Outcomes of the starts in a suite that both have."""
    shared = (start for start in a.keys() & b.keys() if start[0] == suite)
    return Pairs.of((a[start].success, b[start].success) for start in shared)


def reference_of(cell: Cell, cells: Sequence[Cell]) -> Cell | None:
    """The cell that differs from this one in one thing: its pictures, else real-time chunking, the planner, the time.

    The planner of comparison is no planning, or the first cell's where all plan; the time is the first cell's.
    """
    plain = next((one for one in cells if one.planner.get("mode") == "off" and not one.blind), cells[0])
    first = cells[0]
    wanted = (
        replace(cell, blind=False),
        replace(cell, rtc="off"),
        replace(cell, planner=plain.planner),
        replace(cell, clock=first.clock, latency_ms=first.latency_ms, jitter_ms=first.jitter_ms, loss=first.loss),
    )
    for other in wanted:
        for one in cells:
            if one.name != cell.name and replace(other, name=one.name) == one:
                return one
    return None if cell.name == plain.name else plain


def suite_title(suite: str) -> str:
    return SUITE_TITLES.get(suite, suite)


def planner_words(planner: Mapping[str, object], blind: bool = False) -> str:
    """A planner's options in the paper's letters, and whether the policy sees."""
    words = [str(planner["mode"])] if "mode" in planner else []
    words += [f"{_SYMBOLS.get(name, name)}={value}" for name, value in planner.items() if name != "mode"]
    return (" ".join(words) or "the policy's planner") + (", grey pictures" if blind else "")


def cell_words(cell: Cell) -> str:
    """How a cell plans, and whether it sees."""
    return planner_words(cell.planner, cell.blind)


def time_words(cell: Cell) -> str:
    """The clock of a cell, and what happens in its time."""
    if cell.clock != "virtual":
        return cell.clock
    return f"virtual, {cell.latency_ms:g} ms ± {cell.jitter_ms:g}, {cell.loss:.3g} lost"


def _rate(records: Iterable[EpisodeRecord]) -> Estimate:
    outcomes = [record.success for record in records]
    return success_rate(sum(outcomes), len(outcomes))
