"""Several simulators at once, each in a thread, whose episodes come in one order.

A simulator that dies is replaced, and its episode recorded anew. Knows no files.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from itertools import groupby

from wavserve.core.errors import SimulationError, SimulatorDied
from wavserve.core.resize import Pixels
from wavserve.core.simulation import PrivilegedEnvironment
from wavserve.training.demos.recording import Policy, record
from wavserve.training.demos.reference import goal_pictures
from wavserve.training.demos.request import IN_A_ROW, Assignment, Request
from wavserve.training.demos.starts import training_start
from wavserve.training.episode import Episode

_MAX_ATTEMPTS = 5
"""starts of one episode, where the objects lie so that the hand cannot take one"""
_MAX_DEATHS = 3
"""of the simulator in one episode"""

OpenPrivileged = Callable[[], PrivilegedEnvironment]
OpenPolicy = Callable[[], Policy]


class Workers:
    """Threads with a simulator each. A block of episodes of one task goes to one of them, in turn."""

    def __init__(
        self,
        request: Request,
        assigned: list[Assignment],
        num_workers: int,
        open_environment: OpenPrivileged,
        open_policy: OpenPolicy | None,
    ) -> None:
        self._blocks = [list(block) for _, block in groupby(assigned, key=lambda each: each.block)]
        self._stopping = threading.Event()
        self._results: list[queue.Queue[Episode | BaseException]] = [
            queue.Queue(2 * IN_A_ROW) for _ in range(num_workers)
        ]
        self._threads = [
            threading.Thread(
                target=self._work,
                args=(
                    _Worker(request, open_environment, open_policy),
                    self._blocks[index::num_workers],
                    self._results[index],
                ),
                name=f"demonstrations-{index}",
                daemon=True,
            )
            for index in range(num_workers)
        ]

    def episodes(self) -> Iterator[Episode]:
        """In the order of the assignments. Raises what a worker raised."""
        for index, block in enumerate(self._blocks):
            for _ in block:
                result = self._results[index % len(self._results)].get()
                if isinstance(result, BaseException):
                    raise result
                yield result

    def __enter__(self) -> Workers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _work(
        self, worker: _Worker, blocks: list[list[Assignment]], results: queue.Queue[Episode | BaseException]
    ) -> None:
        try:
            with contextlib.closing(worker):
                for assigned in (each for block in blocks for each in block):
                    if not self._put(results, worker.episode(assigned)):
                        return
        except BaseException as error:  # noqa: BLE001  raised where the results are read
            self._put(results, error)

    def _put(self, results: queue.Queue[Episode | BaseException], result: Episode | BaseException) -> bool:
        """False when nobody wants more."""
        while not self._stopping.is_set():
            with contextlib.suppress(queue.Full):
                results.put(result, timeout=0.2)
                return True
        return False


class _Worker:
    """One simulator, and the goal pictures of the tasks it has seen. Opens a new one when the simulator dies."""

    def __init__(self, request: Request, open_environment: OpenPrivileged, open_policy: OpenPolicy | None) -> None:
        self._request, self._open = request, open_environment
        self._open_policy = open_policy
        self._policy: Policy | None = None
        self._environment: PrivilegedEnvironment | None = None
        self._goals: dict[int, dict[str, Pixels]] = {}

    def episode(self, assigned: Assignment) -> Episode:
        for death in range(_MAX_DEATHS):
            try:
                return self._recorded(assigned)
            except SimulatorDied:
                self.close()
                if death == _MAX_DEATHS - 1:
                    raise
        raise AssertionError("unreachable")

    def _recorded(self, assigned: Assignment) -> Episode:
        """From the first start that the hand can begin at."""
        if self._environment is None:
            self._environment = self._open()
        if self._policy is None and self._open_policy is not None:
            self._policy = self._open_policy()
        config, seed, task = self._request.config, self._request.seed, assigned.task
        if task.index not in self._goals:
            self._goals[task.index] = goal_pictures(self._environment, task, seed, config)
        goals = self._goals[task.index]
        for attempt in range(_MAX_ATTEMPTS):
            start = training_start(task, assigned.number, seed, attempt)
            try:
                return record(self._environment, start, assigned.number, goals, config, self._policy)
            except SimulatorDied:
                raise
            except SimulationError:
                if attempt == _MAX_ATTEMPTS - 1:
                    raise
        raise AssertionError("unreachable")

    def close(self) -> None:
        if self._environment is not None:
            self._environment.close()
        self._environment = None
