"""Runs of an evaluation that never took place, for tests of its report."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.clients.libero.examples import CONFIG, record_of
from wavserve.clients.libero.cells import Cell
from wavserve.clients.libero.records import EpisodeRecord, Run, RunConfig, Spread
from wavserve.clients.libero.report.recording import Recording, Shot
from wavserve.core.simulation import Start

VERSIONS = {"wavserve": "0.1.0", "libero": "0.1.1", "mujoco": "3.3.7", "robosuite": "1.4.0", "renderer": "osmesa"}
SUITES = ("libero_spatial", "libero_object", "libero_goal", "libero_10")
OFF = Cell(name="off", planner={"mode": "off"})
PAPER = Cell(name="paper", planner={"mode": "paper", "num_iterations": 5})


def example_config(**changes: Any) -> RunConfig:
    config = replace(CONFIG, suites=SUITES, tasks=(0, 1), num_trials_per_task=4, cells=(OFF, PAPER), versions=VERSIONS)
    return replace(config, **{"untrained": False, **changes})


def example_record(config: RunConfig, cell: Cell, **changes: Any) -> EpisodeRecord:
    """A record with plans, seams and, on the virtual clock, latencies."""
    planned = {field: getattr(cell, field) for field in ("planner", "clock", "latency_ms", "jitter_ms", "loss", "rtc")}
    record = record_of(
        suite=config.suites[0],
        cell=cell.name,
        untrained=config.untrained,
        versions={**config.versions, "service": "0.1.0"},
        plan_latency_ms=Spread(100.0, 120.0, 130.0, 140.0) if cell.clock == "virtual" else None,
        seam_jump=Spread(0.01, 0.02, 0.03, 0.04),
        wall={"episode_s": 4.5, "plan_ms_p50": 80.0, "plan_ms_p90": 90.0, "plan_ms_p99": 95.0, "plan_ms_max": 99.0},
        **planned,
    )
    return replace(record, **changes)


Succeeds = Callable[[Cell, str, int, int], bool]
"""Whether the episode of a cell, suite, task and state succeeds."""


def example_run(config: RunConfig, succeeds: Succeeds) -> Run:
    """Every episode of the configuration."""
    records = (
        example_record(
            config, cell, suite=suite, task=task, state_index=state, success=succeeds(cell, suite, task, state)
        )
        for cell in config.cells
        for suite in config.suites
        for task in config.tasks
        for state in range(config.num_trials_per_task)
    )
    return Run(config, tuple(records))


def delayed_cells() -> tuple[Cell, ...]:
    """Four delays, each with and without real-time chunking."""
    return tuple(
        Cell(name=f"paper-{latency}ms-{rtc}", planner=PAPER.planner, clock="virtual", latency_ms=latency, rtc=rtc)
        for rtc in ("off", "rtc_guided")
        for latency in (0, 100, 200, 300)
    )


def example_recording(num_steps: int = 24, replan_steps: int = 8, scale: float = 0.01) -> Recording:
    """A gripper that follows its chunks at `scale` metres a unit. Its position is its whole state."""
    rng = np.random.default_rng(0)
    plan_steps = np.arange(0, num_steps, replan_steps)
    chunks = rng.uniform(-1, 1, (len(plan_steps), 16, 7)).astype(np.float32)
    executed = np.concatenate([chunk[:replan_steps, :3] for chunk in chunks])[:num_steps]
    moved = np.vstack([np.zeros(3), scale * np.cumsum(executed, axis=0)])
    states = moved + np.array([0.1, 0.2, 1.0])
    return Recording(states.astype(np.float64), plan_steps, np.linspace(0.2, 0.9, len(plan_steps)), chunks)


def example_render(start: Start, states: NDArray[Any]) -> Iterator[Shot]:
    """Plain pictures whose brightness tells the height."""
    for state in states:
        shade = np.uint8(np.clip(state[2] * 100, 0, 255))
        views = {"agentview": np.full((64, 64, 3), shade), "wrist": np.full((64, 64, 3), 255 - shade)}
        yield Shot(views, state, {})


def recorded_run(folder: Path) -> tuple[Run, Path]:
    """A run with everything that its page shows, and its folder with the states of two episodes."""
    config = example_config(cells=(OFF, *delayed_cells()), untrained=True)

    def succeeds(cell: Cell, suite: str, task: int, state: int) -> bool:
        return state >= cell.latency_ms / 100 - (2 if cell.rtc != "off" else 0)

    run = example_run(config, succeeds)
    for record in (run.records[0], next(one for one in run.records if not one.success)):
        file = record.key.states_file(folder)
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(file, **example_recording().arrays())  # type: ignore[arg-type]
    return run, folder
