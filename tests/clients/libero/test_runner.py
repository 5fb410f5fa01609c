"""The episodes of a run end on record exactly once, whatever fails on the way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.clients.chunks import chunk_of, line
from tests.clients.libero.examples import CONFIG, LIBERO_POLICY, record_of
from tests.clients.libero.test_results import full_disk
from tests.simulation.fake import SUITES, FakeEnvironment
from wavserve.clients.libero.episodes import Episode, chosen_tasks, episodes_of
from wavserve.clients.libero.plan_source import EpisodePlan, PlanSource
from wavserve.clients.libero.records import EpisodeRecord, RunConfig
from wavserve.clients.libero.results import ResultsFolder, load_run
from wavserve.clients.libero.runner import Arrays, Listener, Runner, RunnerParts, Timed
from wavserve.core import errors
from wavserve.core.messages import ActionChunk, PolicyInfo

CHUNK = chunk_of(line(0, 1, 16), 0)


class Source:
    """Gives one chunk for ever."""

    def begin(self, instruction: str) -> None: ...

    def plan(self, request: EpisodePlan) -> ActionChunk:
        return CHUNK

    def policy(self) -> PolicyInfo:
        return LIBERO_POLICY

    def close(self) -> None: ...


@dataclass(eq=False)
class Told(Listener):
    """What the run told."""

    keys: list[Any] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)

    def finished(self, record: EpisodeRecord) -> None:
        self.keys.append(record.key)

    def waiting(self, error: errors.WavserveError, pause_s: float) -> None:
        self.troubles.append(error.message)


@dataclass(eq=False)
class Bench:
    """Plays two plans and three steps an episode, unless `fault` raises first."""

    folder: Path
    config: RunConfig = CONFIG
    fault: Callable[[Episode], None] = lambda episode: None
    environments: list[FakeEnvironment] = field(default_factory=list)
    played: list[Any] = field(default_factory=list)
    told: Told = field(default_factory=Told)
    now: float = 0.0
    plan_s: float = 0.0

    @property
    def episodes(self) -> list[Episode]:
        return episodes_of(self.config, chosen_tasks(SUITES, self.config))

    def run(self, num_envs: int = 1, **changes: Any) -> None:
        with ResultsFolder(self.folder, self.config) as results:
            parts = RunnerParts(
                play=self._play,
                record=self._record,
                open_environment=self._open,
                open_source=lambda cell, number: Source(),
                results=results,
                num_envs=num_envs,
                listener=self.told,
                pauses_s=(0.0,),
                clock=lambda: self.now,
            )
            Runner(self.episodes, replace(parts, **changes)).run()

    @property
    def on_record(self) -> list[Any]:
        return [record.key for record in load_run(self.folder).records]

    def _open(self) -> FakeEnvironment:
        self.environments.append(FakeEnvironment())
        return self.environments[-1]

    def _play(self, environment: Any, source: PlanSource, episode: Episode) -> str:
        self.played.append(episode.key)
        environment.reset(episode.start)
        for step in range(2):
            self.now += self.plan_s
            source.plan(EpisodePlan(images={}, state=np.zeros(8), control_step=step, executed_steps=0, seed=1))
            environment.step(np.zeros(7))
        self.fault(episode)
        return episode.task.name

    def _record(self, episode: Episode, result: Any, timed: Timed) -> tuple[EpisodeRecord, Arrays]:
        assert len(timed.plan_ms) == 2
        assert timed.service_version == CHUNK.receipt.version
        key = episode.key
        record = record_of(cell=key.cell, suite=key.suite, task=key.task, state_index=key.state_index, task_name=result)
        return record, {"states": np.zeros((3, 4))}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.mark.parametrize("num_envs", [1, 3])
def test_every_episode_is_on_record_once(bench: Bench, num_envs: int) -> None:
    bench.run(num_envs)
    wanted = [episode.key for episode in bench.episodes]
    assert len(wanted) == 3 * 2 * 2  # tasks, states, cells
    assert sorted(bench.on_record) == sorted(wanted)
    assert sorted(bench.told.keys) == sorted(wanted)
    assert len(bench.environments) == num_envs
    assert all(environment.closed for environment in bench.environments)


def test_cells_have_the_same_starts(bench: Bench) -> None:
    bench.run()
    starts = bench.environments[0].starts
    assert starts[0::2] == starts[1::2]
    assert [(start.task, start.state_index, start.seed) for start in starts[::2]] == [
        (task, state, 7 + state) for task in range(3) for state in range(2)
    ]


def test_a_second_run_does_what_is_left(bench: Bench) -> None:
    stopped_at = bench.episodes[5].key

    def fail(episode: Episode) -> None:
        if episode.key == stopped_at:
            raise errors.ContractMismatch("policy_digest", "a", "b")

    bench.fault = fail
    with pytest.raises(errors.ContractMismatch, match="policy_digest"):
        bench.run()
    assert len(bench.on_record) == 5
    again = Bench(bench.folder)
    again.run()
    assert again.played == [episode.key for episode in bench.episodes[5:]]
    assert sorted(bench.on_record) == sorted(episode.key for episode in bench.episodes)


@pytest.mark.parametrize(
    "error",
    [
        errors.NotReady("no server"),
        errors.Overloaded("full"),
        errors.UnknownSession("session_id", "a session", "an unknown one"),
        errors.SequenceConflict("sequence", 1, 2),
        errors.ModelDown("repair"),
        errors.SimulatorDied("killed"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_episode_that_was_interrupted_begins_anew(bench: Bench, error: errors.WavserveError) -> None:
    failures = iter([error, error])

    def fail(episode: Episode) -> None:
        if episode.key == bench.episodes[1].key and (found := next(failures, None)) is not None:
            raise found

    bench.fault = fail
    bench.run()
    assert bench.played.count(bench.episodes[1].key) == 3
    assert sorted(bench.on_record) == sorted(episode.key for episode in bench.episodes)
    assert bench.told.troubles == [error.message] * 2
    assert len(bench.environments) == (3 if isinstance(error, errors.SimulatorDied) else 1)


@pytest.mark.parametrize(
    "error",
    [
        errors.InvalidRequest("planner.mode", "a mode", "none"),
        errors.UnsafeChunk("beyond a limit"),
        errors.InvalidAnswer("no chunk"),
        errors.SimulationError("it diverged"),
        RuntimeError("a bug"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_another_attempt_does_not_mend_ends_the_run(bench: Bench, error: Exception) -> None:
    def fail(episode: Episode) -> None:
        raise error

    bench.fault = fail
    with pytest.raises(type(error)):
        bench.run(num_envs=2)
    assert bench.on_record == []
    assert all(environment.closed for environment in bench.environments)


def test_the_wait_for_a_service_ends(bench: Bench) -> None:
    def fail(episode: Episode) -> None:
        bench.now += 50.0
        raise errors.NotReady("no server")

    bench.fault = fail
    with pytest.raises(errors.NotReady, match="no server"):
        bench.run(max_wait_s=120.0)
    assert len(bench.told.troubles) == 2


def test_pauses_count_as_waiting(bench: Bench) -> None:
    def fail(episode: Episode) -> None:
        raise errors.Overloaded("full")

    bench.fault = fail
    with pytest.raises(errors.Overloaded, match="full"):
        bench.run(max_wait_s=0.025, pauses_s=(0.01,))
    assert len(bench.told.troubles) == 3


def test_outages_far_apart_are_not_one_wait(bench: Bench) -> None:
    """Each attempt plays for an hour before the service restarts."""
    failures = iter(range(5))

    def restart(episode: Episode) -> None:
        if next(failures, None) is not None:
            raise errors.NotReady("no server")

    bench.fault, bench.plan_s = restart, 1800.0
    bench.run(max_wait_s=600.0)
    assert len(bench.told.troubles) == 5
    assert sorted(bench.on_record) == sorted(episode.key for episode in bench.episodes)


def test_a_simulator_that_dies_again_and_again_ends_the_run(bench: Bench) -> None:
    """Three times it begins anew, however long each one hung."""

    def fail(episode: Episode) -> None:
        bench.now += 300.0
        raise errors.SimulatorDied("out of memory")

    bench.fault = fail
    with pytest.raises(errors.SimulatorDied, match="out of memory"):
        bench.run(max_wait_s=600.0)
    assert len(bench.played) == 4


def test_a_full_disk_ends_the_run_and_the_episode_does_not_count(bench: Bench) -> None:
    with ResultsFolder(bench.folder, bench.config):
        pass
    with full_disk(900), pytest.raises(errors.InvalidRequest, match="--out: expected a folder that takes the records"):
        bench.run()
    assert bench.on_record == bench.told.keys == [bench.episodes[0].key]
    again = Bench(bench.folder)
    again.run()
    assert sorted(bench.on_record) == sorted(episode.key for episode in bench.episodes)


def test_the_other_workers_stop_at_their_next_plan(bench: Bench) -> None:
    """One worker fails while the other one moves the robot between its plans."""
    began = threading.Barrier(2)
    failed = threading.Event()
    ended: list[str] = []

    class Failing(Source):
        def close(self) -> None:
            failed.set()

    def play(environment: Any, source: PlanSource, episode: Episode) -> Any:
        is_first = began.wait(10) == 0
        source.plan(EpisodePlan(images={}, state=np.zeros(8), control_step=0, executed_steps=0, seed=1))
        if is_first:
            raise errors.InvalidRequest("planner.k", 1, 2)
        assert failed.wait(10)
        until = time.monotonic() + 10
        while time.monotonic() < until:  # the run may not have noticed yet
            try:
                source.plan(EpisodePlan(images={}, state=np.zeros(8), control_step=4, executed_steps=4, seed=1))
            except errors.Cancelled as error:
                ended.append(error.message)
                raise
        return ""

    with pytest.raises(errors.InvalidRequest):
        bench.run(num_envs=2, play=play, open_source=lambda cell, number: Failing())
    assert ended == ["the run ends"]
    assert bench.on_record == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tasks": (0, 3)}, "--tasks: expected 0 to 2, the tasks of fake_reach, got 3"),
        ({"num_trials_per_task": 6}, "--num-trials-per-task: expected at most 5 .* got 6"),
        ({"first_state": 4}, "--num-trials-per-task: expected at most 5 with --first-state, .* got 6"),
    ],
)
def test_what_a_suite_does_not_have_is_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(errors.InvalidRequest, match=words):
        chosen_tasks(SUITES, replace(CONFIG, **changes))
