"""Two runs held against each other."""

from __future__ import annotations

import dataclasses

from tests.clients.libero.runs import OFF, PAPER, VERSIONS, example_config, example_run
from wavserve.clients.libero.cells import Cell
from wavserve.clients.libero.records import Run
from wavserve.clients.libero.report.compare import compare_runs
from wavserve.clients.libero.report.statistics import Pairs, paired_difference
from wavserve.clients.libero.report.table import difference_text


def always(cell: Cell, suite: str, task: int, state: int) -> bool:
    return True


def at_first(cell: Cell, suite: str, task: int, state: int) -> bool:
    return state == 0


SMALL = example_config(suites=("libero_object",), cells=(PAPER,))


def test_a_run_equals_itself() -> None:
    run = example_run(SMALL, always)
    told = compare_runs(run, run)
    assert "Configurations\n  equal" in told
    assert "8 of them are equal in success, steps, holds and every plan's receipt" in told


def test_what_differs_is_named() -> None:
    slow = dataclasses.replace(PAPER, planner={"mode": "paper", "num_iterations": 9})
    other = dataclasses.replace(SMALL, transport="http", cells=(slow,), versions={**VERSIONS, "mujoco": "3.1.0"})
    a, b = example_run(SMALL, always), example_run(other, always)
    b = Run(other, tuple(dataclasses.replace(one, versions={**one.versions, "service": "0.2.0"}) for one in b.records))
    told = compare_runs(a, b)
    assert "versions.service: 0.1.0 in A, 0.2.0 in B" in told
    assert "transport: grpc in A, http in B" in told
    assert "cells.paper.planner.num_iterations: 5 in A, 9 in B" in told
    assert "versions.mujoco: 3.3.7 in A, 3.1.0 in B" in told
    assert "The simulators differ" in told
    assert "replan_steps" not in told


def test_success_is_compared_start_by_start() -> None:
    a, b = example_run(SMALL, always), example_run(SMALL, at_first)
    told = compare_runs(a, b)
    assert f"A minus B {difference_text(paired_difference(Pairs(both=2, only_a=6)))}" in told
    assert "A alone succeeds: libero_object task 0 state 1 seed 7" in told
    assert "B alone succeeds" not in told
    assert "2 of them are equal" in told


def test_starts_of_one_run_alone_are_left_out() -> None:
    a, b = example_run(SMALL, always), example_run(SMALL, always)
    b = Run(b.config, tuple(dataclasses.replace(one, seed=8) if one.state_index else one for one in b.records))
    told = compare_runs(a, b)
    assert "2 episodes began alike; 6 are in A only, 6 in B only" in told
    assert "A minus B +0.0" in told
    assert "n 2" in told


def test_starts_that_are_shifted_by_another_distance_are_others() -> None:
    """One seed draws other places within another disc."""
    a, b = (
        Run(
            dataclasses.replace(run.config, shift=shift),
            tuple(dataclasses.replace(one, shift=shift) for one in run.records),
        )
        for run, shift in ((example_run(SMALL, always), 0.02), (example_run(SMALL, at_first), 0.05))
    )
    told = compare_runs(a, b)
    assert "shift: 0.02 in A, 0.05 in B" in told
    assert "0 episodes began alike; 8 are in A only, 8 in B only" in told
    assert "A alone succeeds: libero_object task 0 state 1 seed 7 shift 0.02 m" in compare_runs(
        a, Run(a.config, tuple(dataclasses.replace(one, success=one.state_index == 0) for one in a.records))
    )


def test_the_one_cell_of_two_runs_is_compared_whatever_its_name() -> None:
    other = dataclasses.replace(SMALL, cells=(OFF,))
    told = compare_runs(example_run(SMALL, always), example_run(other, at_first))
    assert "paper (A) and off (B)" in told
    assert "cells: paper in A, off in B" in told
    assert "cells.paper.planner.mode: paper in A, off in B" in told
    assert "clock" not in told


def test_a_run_without_an_episode_is_told() -> None:
    told = compare_runs(example_run(SMALL, always), Run(SMALL, ()))
    assert "versions.service: 0.1.0 in A, none in B" in told
    assert "0 episodes began alike; 8 are in A only, 0 in B only" in told


def test_another_version_of_wavserve_is_no_other_simulator() -> None:
    other = dataclasses.replace(SMALL, versions={**VERSIONS, "wavserve": "0.2.0"})
    told = compare_runs(example_run(SMALL, always), example_run(other, always))
    assert "versions.wavserve: 0.1.0 in A, 0.2.0 in B" in told
    assert "The simulators differ" not in told


def test_runs_without_a_common_cell_are_not_paired() -> None:
    cells = (Cell(name="x"), Cell(name="y"))
    told = compare_runs(example_run(SMALL, always), example_run(dataclasses.replace(SMALL, cells=cells), always))
    assert "No cell is in both runs" in told


def test_untrained_weights_are_called_so() -> None:
    told = compare_runs(example_run(SMALL, always), example_run(dataclasses.replace(SMALL, untrained=True), always))
    assert "UNTRAINED" in told


def test_a_long_list_of_starts_is_cut() -> None:
    many = dataclasses.replace(SMALL, num_trials_per_task=30)
    told = compare_runs(example_run(many, always), example_run(many, at_first))
    assert "and 38 more" in told
