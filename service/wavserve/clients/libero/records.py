"""The record of an evaluation: its configuration, and one line for each episode. Data only.

The folder of a run has `run.json`, `episodes.jsonl`, `states/` (simulator states, for videos) and `report/`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from wavserve.clients.libero.cells import Cell
from wavserve.core.simulation import Start
from wavserve.core.starts import shifted_start

RUN_FILE, EPISODES_FILE, STATES_FOLDER, REPORT_FOLDER = "run.json", "episodes.jsonl", "states", "report"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """What a run evaluates, and by which protocol. Two runs of equal configurations may share a folder."""

    suites: tuple[str, ...]
    tasks: tuple[int, ...]
    """indices in each suite; empty: all"""
    num_trials_per_task: int
    first_state: int
    """the trials begin at the initial states from here on"""
    seed: int
    replan_steps: int
    num_steps_wait: int
    max_steps: int | None
    """None: the suite's own limit"""
    rotation: int
    transport: str
    """stream, grpc, http or in-process"""
    cells: tuple[Cell, ...]
    policy: str
    policy_digest: str
    untrained: bool
    versions: Mapping[str, str]
    """of wavserve and of the simulator's parts"""
    antialiasing: bool = True
    """of the pictures"""
    shift: float = 0.0
    """how far objects are moved from their shipped places, in m"""


@dataclass(frozen=True, slots=True)
class Spread:
    """Percentiles of a quantity within one episode."""

    p50: float
    p90: float
    p99: float
    max: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread | None:
        """None without a value."""
        array = np.array(list(values), np.float64)
        return cls(*(float(each) for each in np.percentile(array, (50, 90, 99, 100)))) if array.size else None


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeRecord:
    """One finished episode. Runs of equal configurations differ in `wall` only, unless the clock is `wall`."""

    suite: str
    task: int
    task_name: str
    state_index: int
    seed: int
    cell: str
    planner: Mapping[str, object]
    clock: str
    latency_ms: float
    jitter_ms: float
    loss: float
    rtc: str
    replan_steps: int
    transport: str
    policy: str
    policy_digest: str
    untrained: bool
    versions: Mapping[str, str]
    """as in the run's configuration, and `service`"""
    success: bool
    num_steps: int
    """control steps until success or the limit, without the settling steps"""
    num_plans: int
    num_holds: int
    """steps at which no chunk had an action"""
    plan_latency_ms: Spread | None
    """as drawn, on the virtual clock; None on the others"""
    seam_jump: Spread | None
    """at the changes of chunks, in fractions of the action's range; None: no chunk followed another one"""
    receipt_digests: tuple[str, ...]
    """of each plan"""
    num_lost: int = 0
    """plans that were lost on their way"""
    num_unsafe: int = 0
    """plans that the service refused, because they break a limit of the policy"""
    num_late: int = 0
    """chunks that arrived when nothing of them could be executed any more"""
    antialiasing: bool = True
    """of the pictures"""
    shift: float = 0.0
    """how far objects were moved from their shipped places, in m; the seed says where to"""
    blind: bool = False
    """grey pictures instead of the cameras'"""
    failure: str = ""
    """what ended the episode before success and the limit; empty: nothing did. It counts as failed"""
    wall: Mapping[str, float] = field(default_factory=dict)
    """what depends on the machine: `episode_s`, and `plan_ms_p50`, `plan_ms_p90`, `plan_ms_p99`, `plan_ms_max`"""

    @property
    def key(self) -> EpisodeKey:
        return EpisodeKey(self.cell, self.suite, self.task, self.state_index)

    @property
    def start(self) -> Start:
        """Where the episode began."""
        return shifted_start(self.suite, self.task, self.state_index, self.seed, self.shift)


@dataclass(frozen=True, slots=True, order=True)
class EpisodeKey:
    """Which episode of a run."""

    cell: str
    suite: str
    task: int
    state_index: int

    def states_file(self, folder: Path) -> Path:
        """Where the recording of the episode is: an npz file of what `report.recording.Recording` holds."""
        return folder / STATES_FOLDER / f"{self.cell}-{self.suite}-{self.task}-{self.state_index}.npz"


@dataclass(frozen=True, slots=True)
class Run:
    """A run as its folder has it. The records are in the order in which the episodes ended."""

    config: RunConfig
    records: tuple[EpisodeRecord, ...]
