"""The first steps of a few episodes, which predict the hours of a study.

Decides nothing: what the budget then allows is in `plan`.
"""

from __future__ import annotations

import contextlib
import math
import statistics
from dataclasses import replace
from pathlib import Path

from loadtest.study.plan import Budget, Cost, Study, screened_cells, within_budget
from loadtest.study.runs import Place, StudyError, run
from wavserve.bundle import bundle
from wavserve.clients.libero.records import Run
from wavserve.core.simulation import OpenEnvironment, TaskInfo

PILOT_STEPS = 40
"""of each cell's episode whose time predicts the others'"""


def predicted(study: Study, digest: str, place: Place, open_environment: OpenEnvironment) -> Budget:
    """From the first steps of two episodes of every cell. Raises SettingsError when the budget allows too little, and
    StudyError when the service has another policy than the bundle."""
    num_tasks = len(tasks_of(study, open_environment))
    tried = replace(study, tasks=study.tasks[:1] or (0,), num_envs=1)
    starts = replace(study.screen, num_trials_per_task=2)
    cells = screened_cells(study, Budget(digest, 0.0))
    pilot = run(place, tried, "pilot", starts, cells, "--max-steps", str(PILOT_STEPS))
    served, ours = pilot.config.policy_digest, bundle.digest(Path(place.bundle))
    if served != ours:
        raise StudyError(f"--bundle: expected the policy that the service has, {served[:12]}, got {ours[:12]}")
    return replace(within_budget(study, digest, num_tasks, costs_of(study, pilot)), policy_digest=ours)


def tasks_of(study: Study, open_environment: OpenEnvironment) -> list[TaskInfo]:
    """The tasks that it plays."""
    with contextlib.closing(open_environment()) as environment:
        tasks = environment.tasks(study.suite)
    return [tasks[index] for index in study.tasks or range(len(tasks))]


def costs_of(study: Study, pilot: Run) -> dict[str, Cost]:
    """Of each cell's episode. The simulator costs the same in every cell: the median leaves out the first one, in which
    it also built a scene. A cell's plans cost what they do in its faster episode: in the other one models may have been
    compiled."""
    plans_s: dict[str, float] = {}
    for one in pilot.records:
        plans_s[one.cell] = min(one.wall.get("plan_ms_p50", 0.0) / 1e3, plans_s.get(one.cell, math.inf))
    steps_s = statistics.median(
        (one.wall["episode_s"] - one.num_plans * one.wall.get("plan_ms_p50", 0.0) / 1e3) / max(one.num_steps, 1)
        for one in pilot.records
    )
    plans = study.expected_steps / study.replan_steps
    return {name: Cost(max(steps_s, 0.0) * study.expected_steps, each * plans) for name, each in plans_s.items()}
