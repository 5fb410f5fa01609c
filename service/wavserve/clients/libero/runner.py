"""Runs the episodes of an evaluation on several environments at once. Each one ends on record exactly once.

An episode that a dead service or simulator ended begins anew, after a pause. Anything else ends the run. Knows neither
the simulator nor the service: both come through seams.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from wavserve.clients.libero.cells import Cell
from wavserve.clients.libero.episodes import Episode
from wavserve.clients.libero.plan_source import EpisodePlan, PlanSource
from wavserve.clients.libero.records import EpisodeRecord
from wavserve.clients.libero.results import ResultsFolder
from wavserve.core.errors import (
    Cancelled,
    SequenceConflict,
    SimulationError,
    SimulatorDied,
    StaleEpoch,
    UnknownSession,
    UnsafeChunk,
    WavserveError,
)
from wavserve.core.messages import ActionChunk, PolicyInfo
from wavserve.core.simulation import Environment, OpenEnvironment
from wavserve.core.types import Clock

PAUSES_S = (1.0, 2.0, 5.0)
"""before an episode begins anew; the last one is repeated"""
MAX_WAIT_S = 600.0
"""An episode that has waited so long for plans, in all its attempts together, ends the run."""
MAX_DEATHS = 3
"""of the simulator in one episode"""
TICK_S = 1.0
STOP_S = 10.0
_LOST_SESSION = (UnknownSession, SequenceConflict, StaleEpoch)
"""The service was restarted, or forgot the session."""

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Timed:
    """What depends on the machine and on the service, beside an episode's result."""

    episode_s: float
    plan_ms: tuple[float, ...]
    service_version: str


Play = Callable[[Environment, PlanSource, Episode], Any]
"""Runs one episode."""
Record = Callable[[Episode, Any, Timed], tuple[EpisodeRecord, Arrays]]
"""The record of what `Play` returned, and the arrays to keep beside it."""
OpenSource = Callable[[Cell, int], PlanSource]
"""A source for a cell; the number tells workers apart."""


class Listener:
    """What a run tells while it runs, on the threads of the workers but never on two at once. Does nothing."""

    def finished(self, record: EpisodeRecord) -> None:
        """An episode is on record."""

    def waiting(self, error: WavserveError, pause_s: float) -> None:
        """An episode begins anew after the pause."""

    def tick(self) -> None:
        """About a second has passed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerParts:
    """What a runner is assembled from."""

    play: Play
    record: Record
    open_environment: OpenEnvironment
    open_source: OpenSource
    results: ResultsFolder
    num_envs: int
    listener: Listener
    clock: Clock = time.monotonic
    pauses_s: Sequence[float] = PAUSES_S
    max_wait_s: float = MAX_WAIT_S


class Runner:
    """Runs the episodes that are not on record yet."""

    def __init__(self, episodes: Sequence[Episode], parts: RunnerParts) -> None:
        self._parts = parts
        self._queue = deque(each for each in episodes if each.key not in parts.results.done)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._error: BaseException | None = None

    def run(self) -> None:
        """Returns when every episode is on record. Raises what ended the run; what is on record stays there."""
        num_workers = min(self._parts.num_envs, len(self._queue))
        workers = [threading.Thread(target=self._work, args=(i,), daemon=True) for i in range(num_workers)]
        for worker in workers:
            worker.start()
        try:
            for worker in workers:
                while worker.is_alive() and not self._stop.is_set():
                    worker.join(TICK_S)
                    with self._lock:
                        self._parts.listener.tick()
        finally:
            self._stop.set()
            until = time.monotonic() + STOP_S
            for worker in workers:
                worker.join(max(until - time.monotonic(), 0.0))
        if self._error is not None:
            raise self._error

    def _work(self, number: int) -> None:
        """One worker: its episodes, one after another, in its own environment."""
        try:
            with closing(_Worker(self._parts, number, self._stop)) as worker:
                while not self._stop.is_set() and (episode := self._next()) is not None:
                    self._finish(*self._until_done(worker, episode))
        except BaseException as error:  # noqa: BLE001  # `run` raises it
            if not self._stop.is_set():
                self._error = error
            self._stop.set()

    def _next(self) -> Episode | None:
        with self._lock:
            return self._queue.popleft() if self._queue else None

    def _until_done(self, worker: _Worker, episode: Episode) -> tuple[EpisodeRecord, Arrays]:
        """Begins the episode until it ends. Raises what another attempt does not mend."""
        patience = _Patience(self._parts)
        while True:
            try:
                return worker.attempt(episode)
            except WavserveError as error:
                worker.recover(error)
                pause_s = patience.pause_after(error, worker.idle_s)
                with self._lock:
                    self._parts.listener.waiting(error, pause_s)
                if self._stop.wait(pause_s):
                    raise

    def _finish(self, record: EpisodeRecord, arrays: Arrays) -> None:
        with self._lock:
            if self._stop.is_set():  # the folder may be closed
                return
            self._parts.results.add(record, arrays)
            self._parts.listener.finished(record)


class _Worker:
    """An environment, opened when it is needed."""

    def __init__(self, parts: RunnerParts, number: int, stop: threading.Event) -> None:
        self._parts, self._number, self._stop = parts, number, stop
        self._environment: Environment | None = None
        self._active_at = 0.0

    @property
    def idle_s(self) -> float:
        """Since the latest plan of the latest attempt, or since its begin."""
        return self._parts.clock() - self._active_at

    def _is_active(self) -> None:
        self._active_at = self._parts.clock()

    def attempt(self, episode: Episode) -> tuple[EpisodeRecord, Arrays]:
        """Runs an episode. Raises whatever it met."""
        self._is_active()
        if self._environment is None:
            self._environment = self._parts.open_environment()
        began_at = time.perf_counter()
        opened = self._parts.open_source(episode.cell, self._number)
        with closing(_Watched(opened, self._stop, self._is_active)) as source:
            result = self._parts.play(self._environment, source, episode)
        timed = Timed(time.perf_counter() - began_at, tuple(source.plan_ms), source.service_version)
        return self._parts.record(episode, result, timed)

    def recover(self, error: WavserveError) -> None:
        """Gives up an environment that failed."""
        if isinstance(error, SimulationError):
            self.close()

    def close(self) -> None:
        if self._environment is not None:
            self._environment.close()
            self._environment = None


class _Patience:
    """How often and how long one episode is tried again."""

    def __init__(self, parts: RunnerParts) -> None:
        self._parts = parts
        self._num_failures = self._num_deaths = 0
        self._waited_s = 0.0

    def pause_after(self, error: WavserveError, idle_s: float) -> float:
        """Seconds until the next attempt. `idle_s`: without a plan, before the error. Raises the error when no other
        attempt follows."""
        if isinstance(error, SimulatorDied):
            self._num_deaths += 1
        else:
            self._waited_s += idle_s
        if not _is_passing(error) or self._num_deaths > MAX_DEATHS or self._waited_s > self._parts.max_wait_s:
            raise error
        pauses = self._parts.pauses_s
        self._num_failures += 1
        pause_s = pauses[min(self._num_failures, len(pauses)) - 1]
        self._waited_s += pause_s
        return pause_s


def _is_passing(error: WavserveError) -> bool:
    """Whether the same episode may succeed later. The same seed gives an unsafe chunk again."""
    return isinstance(error, _LOST_SESSION) or (error.retryable and not isinstance(error, UnsafeChunk))


class _Watched:
    """A source that measures its plans, and refuses one when the run ends."""

    def __init__(self, source: PlanSource, stop: threading.Event, planned: Callable[[], None]) -> None:
        """`planned` is called after each plan."""
        self._source, self._stop, self._planned = source, stop, planned
        self.plan_ms: list[float] = []
        self.service_version = ""

    def begin(self, instruction: str) -> None:
        self._source.begin(instruction)

    def plan(self, request: EpisodePlan) -> ActionChunk:
        if self._stop.is_set():
            raise Cancelled("the run ends")
        asked_at = time.perf_counter()
        chunk = self._source.plan(request)
        self.plan_ms.append((time.perf_counter() - asked_at) * 1e3)
        self._planned()
        self.service_version = chunk.receipt.version
        return chunk

    def policy(self) -> PolicyInfo:
        return self._source.policy()

    def close(self) -> None:
        self._source.close()
