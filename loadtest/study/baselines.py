"""Baselines that are no policy: the scripted expert, and the mean demonstration of a task played without looking.

They act on the same starts as the policy's episodes and go on record in the same form. They need no pictures.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from loadtest.study.plan import Starts, Study
from wavserve.clients.libero.cells import Cell
from wavserve.clients.libero.episode import EpisodeConfig, EpisodeResult
from wavserve.clients.libero.episodes import Episode, chosen_tasks, episodes_of
from wavserve.clients.libero.evaluation import record_of
from wavserve.clients.libero.plan_source import EpisodePlan, PlanSource
from wavserve.clients.libero.records import EpisodeRecord, Run, RunConfig
from wavserve.clients.libero.results import ResultsFolder, load_run
from wavserve.clients.libero.runner import Arrays, Listener, Runner, RunnerParts, Timed
from wavserve.core.errors import BundleError, SimulationDiverged, SimulationError
from wavserve.core.libero import STILL
from wavserve.core.messages import ActionChunk, PolicyInfo
from wavserve.core.simulation import Environment, OpenEnvironment, PrivilegedEnvironment, TaskInfo
from wavserve.training.dataset import Dataset
from wavserve.training.demos.expert import VERSION, Expert

EXPERT, MEAN_DEMONSTRATION = "expert", "mean-demonstration"
Commands = NDArray[np.float64]


class Actor(Protocol):
    """Acts in one episode."""

    def command(self, step: int) -> Commands:
        """`[7]`: of a control step."""
        ...


class Acts(Protocol):
    """Begins an episode that has settled."""

    def __call__(self, environment: Environment, task: TaskInfo) -> Actor: ...


class GaveUp(Exception):
    """An actor does not know how to go on. Its episode has failed."""


@dataclass(frozen=True, slots=True)
class ExpertActor:
    """The scripted expert, which sees the simulator's truth."""

    environment: PrivilegedEnvironment
    expert: Expert

    def command(self, step: int) -> Commands:
        """As `Actor.command`. Raises GaveUp when the object has slipped and offers no grasp any more."""
        poses = self.environment.poses()
        with _giving_up():
            return np.asarray(self.expert.act(poses))


def expert(environment: Environment, task: TaskInfo) -> Actor:
    """Raises GaveUp when the object offers no grasp."""
    assert isinstance(environment, PrivilegedEnvironment), "a simulator knows its scene"
    layout, poses = environment.layout(), environment.poses()
    with _giving_up():
        return ExpertActor(environment, Expert(layout, poses))


@contextmanager
def _giving_up() -> Iterator[None]:
    """Around the expert alone: the simulator's own errors, which another attempt may mend, pass by it."""
    try:
        yield
    except SimulationError as error:
        raise GaveUp(error.message) from error


@dataclass(frozen=True, slots=True)
class Replay:
    """Commands that are played one after another; then it stands still with its last gripper."""

    commands: Commands

    def command(self, step: int) -> Commands:
        """As `Actor.command`."""
        if step < len(self.commands):
            return np.asarray(self.commands[step])
        return np.array([*STILL[:6], self.commands[-1][6]])


@dataclass(frozen=True, slots=True)
class MeanDemonstrations:
    """The mean demonstration of each task of a suite."""

    commands: Mapping[tuple[str, int], Commands]

    @classmethod
    def of(cls, data: Dataset) -> MeanDemonstrations:
        """Of the expert's successful episodes."""
        found: defaultdict[tuple[str, int], list[Commands]] = defaultdict(list)
        for index, info in enumerate(data.infos):
            if info.kind == "expert" and info.success:
                action = data.read(index, pictures=False).action
                found[info.suite, info.task].append(np.asarray(action, np.float64))
        return cls({task: mean_commands(each) for task, each in found.items()})

    @property
    def digest(self) -> str:
        """Other demonstrations make another baseline."""
        parts = (f"{suite} {task}".encode() + rows.tobytes() for (suite, task), rows in sorted(self.commands.items()))
        return hashlib.sha256(b"".join(parts)).hexdigest()

    def __call__(self, environment: Environment, task: TaskInfo) -> Actor:
        return Replay(self.commands[task.suite, task.index])


def mean_commands(demonstrations: Iterable[Commands]) -> Commands:
    """`[T, 7]`: the mean at each step over the demonstrations that last so long, as long as half of them do. The
    gripper does what most of them do."""
    each = sorted(demonstrations, key=len, reverse=True)
    length = len(each[len(each) // 2])
    rows = [np.mean([commands[step] for commands in each if len(commands) > step], axis=0) for step in range(length)]
    mean = np.array(rows)
    mean[:, 6] = np.where(mean[:, 6] > 0, 1.0, -1.0)
    return mean


class _NoPlans:
    """A source of plans that is never asked."""

    def begin(self, instruction: str) -> None: ...

    def plan(self, request: EpisodePlan) -> ActionChunk:
        raise AssertionError("a baseline makes no plans")

    def policy(self) -> PolicyInfo:
        raise AssertionError("a baseline is no policy")

    def close(self) -> None: ...


def play(acts: Acts, environment: Environment, episode: Episode, settling_steps: int) -> EpisodeResult:
    """One episode of an actor. One that gives up has failed."""
    task = environment.reset(episode.start)
    for _ in range(settling_steps):
        environment.step(np.array(STILL))
    states, success, failure = [environment.sim_state()], False, ""
    try:
        actor = acts(environment, task)
        while not success and len(states) <= task.max_steps:
            success = environment.step(actor.command(len(states) - 1))
            states.append(environment.sim_state())
    except (SimulationDiverged, GaveUp) as error:
        failure = str(error)
    return EpisodeResult(
        success=success,
        num_steps=len(states) - 1,
        num_plans=0,
        num_holds=0,
        num_lost=0,
        num_unsafe=0,
        num_late=0,
        plan_latencies_ms=(),
        seam_jumps=(),
        receipt_digests=(),
        chunks=(),
        failure=failure,
        sim_states=np.stack(states),
    )


@dataclass(frozen=True, slots=True)
class Baseline:
    """Who acts."""

    name: str
    acts: Acts
    digest: str
    """Two runs of one baseline may share a folder when this is equal."""


EXPERTS = Baseline(EXPERT, expert, f"version {VERSION}")


def mean_demonstration(data: Dataset, tasks: Iterable[TaskInfo]) -> Baseline:
    """Raises BundleError for an episode that cannot be read, or without an expert's success in a task."""
    mean = MeanDemonstrations.of(data)
    for task in tasks:
        if (task.suite, task.index) not in mean.commands:
            raise BundleError(
                f"{data.folder}: expected an episode of {task.suite} task {task.index} that the expert solved, got none"
            )
    return Baseline(MEAN_DEMONSTRATION, mean, mean.digest)


@dataclass(frozen=True, slots=True)
class Baselines:
    """Runs baselines into folders that `wavserve libero report` reads."""

    study: Study
    open_environment: OpenEnvironment
    progress: Callable[[Run, int], AbstractContextManager[Listener]] = lambda run, num_episodes: nullcontext(Listener())
    """what listens to a run that has so many episodes in all"""

    def run(self, folder: Path, starts: Starts, baseline: Baseline) -> Run:
        """Runs the episodes that are not on record. Raises what the environment and the folder raise."""
        first = self.open_environment()
        try:
            config = self._config(baseline, starts, first)
            tasks = chosen_tasks({self.study.suite: first.tasks(self.study.suite)}, config)
        finally:
            first.close()

        def act(environment: Environment, source: PlanSource, episode: Episode) -> EpisodeResult:
            return play(baseline.acts, environment, episode, config.num_steps_wait)

        def record(episode: Episode, result: EpisodeResult, timed: Timed) -> tuple[EpisodeRecord, Arrays]:
            return record_of(config, episode, result, timed), {}

        episodes = episodes_of(config, tasks)
        with ResultsFolder(folder, config) as results, self.progress(load_run(folder), len(episodes)) as listener:
            parts = RunnerParts(
                play=act,
                record=record,
                open_environment=self.open_environment,
                open_source=lambda cell, worker: _NoPlans(),
                results=results,
                num_envs=self.study.num_envs,
                listener=listener,
            )
            Runner(episodes, parts).run()
        return load_run(folder)

    def _config(self, baseline: Baseline, starts: Starts, environment: Environment) -> RunConfig:
        return RunConfig(
            suites=(self.study.suite,),
            tasks=self.study.tasks,
            num_trials_per_task=starts.num_trials_per_task,
            first_state=0,
            seed=starts.seed,
            replan_steps=self.study.replan_steps,
            num_steps_wait=EpisodeConfig().num_steps_wait,
            max_steps=None,
            rotation=180,
            transport="none",
            cells=(Cell(name=baseline.name),),
            policy=baseline.name,
            policy_digest=baseline.digest,
            untrained=False,
            versions=environment.versions(),
            antialiasing=not self.study.no_antialiasing,
            shift=starts.shift,
        )


def renamed(run: Run, name: str) -> Run:
    """A run of one cell, under another name of that cell."""
    [cell] = run.config.cells
    records = tuple(replace(record, cell=name) for record in run.records)
    return Run(replace(run.config, cells=(replace(cell, name=name),)), records)
