"""Two runs held against each other: what differs in their configurations, and success start by start. Text only."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from wavserve.clients.libero.cells import Cell
from wavserve.clients.libero.records import EpisodeRecord, Run
from wavserve.clients.libero.report.statistics import mean, paired_difference
from wavserve.clients.libero.report.summary import StartKey, Summary, by_start, pairs_of, suite_title
from wavserve.clients.libero.report.table import UNTRAINED, difference_text, rate_text

_MAX_LISTED = 20


def compare_runs(a: Run, b: Run) -> str:
    """Success of a minus success of b, over the episodes whose cell, suite, task, state, seed and shift are
    equal."""
    lines = ["Configurations", *(_indented(_differences(a, b)) or ["  equal"])]
    lines += _warnings(a, b)
    matched = _matched(a.config.cells, b.config.cells)
    for cell_a, cell_b in matched:
        lines += ["", *_cells(Summary.of(a), Summary.of(b), cell_a, cell_b)]
    if not matched:
        lines += ["", "No cell is in both runs: nothing is paired."]
    return "\n".join(lines)


def _differences(a: Run, b: Run) -> list[str]:
    mine, theirs = _facts(a), _facts(b)
    for cell_a, cell_b in _matched(a.config.cells, b.config.cells):
        mine |= _flat(dataclasses.asdict(dataclasses.replace(cell_a, name="")), f"cells.{cell_a.name}.")
        theirs |= _flat(dataclasses.asdict(dataclasses.replace(cell_b, name="")), f"cells.{cell_a.name}.")
    names = sorted(mine.keys() | theirs.keys())
    return [
        f"{name}: {mine.get(name, 'not given')} in A, {theirs.get(name, 'not given')} in B"
        for name in names
        if mine.get(name) != theirs.get(name)
    ]


def _facts(run: Run) -> dict[str, object]:
    """What the numbers of a run depend on, by dotted name. Of the cells only their names."""
    services = sorted({record.versions.get("service", "unknown") for record in run.records})
    cells = ", ".join(cell.name for cell in run.config.cells)
    config = {**dataclasses.asdict(run.config), "cells": cells}
    return {**_flat(config), "versions.service": ", ".join(services) or "none"}


def _flat(value: Mapping[str, object], path: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, each in value.items():
        flat |= _flat(each, f"{path}{key}.") if isinstance(each, Mapping) else {f"{path}{key}": each}
    return flat


def _warnings(a: Run, b: Run) -> list[str]:
    """What makes the numbers of two runs tell less than they seem to."""
    told = [UNTRAINED] if a.config.untrained or b.config.untrained else []
    if _simulator(a) != _simulator(b):
        told.append("The simulators differ: equal starts and seeds are not equal episodes.")
    return ["", *told] if told else []


def _simulator(run: Run) -> dict[str, object]:
    """Versions and settings of everything that a scene and its pictures depend on."""
    versions = {name: version for name, version in run.config.versions.items() if name != "wavserve"}
    return versions | {"antialiasing": run.config.antialiasing}


def _matched(a: Sequence[Cell], b: Sequence[Cell]) -> list[tuple[Cell, Cell]]:
    """Cells of equal names; where there is none and each run has one cell, those two."""
    named = {cell.name: cell for cell in b}
    both = [(cell, named[cell.name]) for cell in a if cell.name in named]
    return both or ([(a[0], b[0])] if len(a) == len(b) == 1 else [])


def _cells(a: Summary, b: Summary, cell_a: Cell, cell_b: Cell) -> list[str]:
    mine, theirs = by_start(a.by_cell[cell_a.name]), by_start(b.by_cell[cell_b.name])
    name = cell_a.name if cell_a.name == cell_b.name else f"{cell_a.name} (A) and {cell_b.name} (B)"
    lines = [name]
    suites = [suite for suite in a.suites if suite in b.suites]
    differences = {suite: paired_difference(pairs_of(mine, theirs, suite)) for suite in suites}
    for suite, difference in differences.items():
        counts = f"A {rate_text(a.rate(cell_a, suite))}; B {rate_text(b.rate(cell_b, suite))}"
        lines.append(f"  {suite_title(suite)}: {counts}; A minus B {difference_text(difference)}")
    if len(suites) > 1:
        lines.append(f"  average: A minus B {difference_text(mean(list(differences.values())))}")
    return lines + _indented(_episodes(mine, theirs))


def _episodes(a: Mapping[StartKey, EpisodeRecord], b: Mapping[StartKey, EpisodeRecord]) -> list[str]:
    shared = sorted(a.keys() & b.keys())
    told = [
        f"{len(shared)} episodes began alike; {len(a) - len(shared)} are in A only, {len(b) - len(shared)} in B only"
    ]
    if shared:
        equal = [start for start in shared if _same(a[start], b[start])]
        told.append(f"{len(equal)} of them are equal in success, steps, holds and every plan's receipt")
    for title, starts in (
        ("A alone succeeds", [start for start in shared if a[start].success > b[start].success]),
        ("B alone succeeds", [start for start in shared if a[start].success < b[start].success]),
    ):
        if starts:
            more = f"; and {len(starts) - _MAX_LISTED} more" if len(starts) > _MAX_LISTED else ""
            told.append(f"{title}: {'; '.join(map(_start_words, starts[:_MAX_LISTED]))}{more}")
    return told


def _same(a: EpisodeRecord, b: EpisodeRecord) -> bool:
    def outcome(one: EpisodeRecord) -> tuple[object, ...]:
        return one.success, one.num_steps, one.num_holds, one.receipt_digests

    return outcome(a) == outcome(b)


def _start_words(start: StartKey) -> str:
    suite, task, state, seed, shift = start
    shifted = f" shift {shift:g} m" if shift else ""
    return f"{suite} task {task} state {state} seed {seed}{shifted}"


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"  {line}" for line in lines]
