"""Generates a data set: every task in turn, several simulators at once, and on from where an earlier program ended.

An episode depends on the recipe, its task and its number only, and episodes are put on disk in one order. So neither
the number of simulators nor an interruption changes a data set. Knows no network.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

from wavserve.core.errors import InvalidRequest, SimulationError, SimulatorDied
from wavserve.core.jpeg import JPEG_QUALITY
from wavserve.core.resize import Pixels
from wavserve.core.simulation import PrivilegedEnvironment, TaskInfo, Variation
from wavserve.training.dataset_format import Recipe, TaskEntry
from wavserve.training.dataset_writer import DatasetWriter
from wavserve.training.demos.expert import VERSION
from wavserve.training.demos.recording import Policy, RecordingConfig, record
from wavserve.training.demos.reference import goal_pictures
from wavserve.training.demos.reward import DISCOUNT, WEIGHTS
from wavserve.training.demos.starts import training_start
from wavserve.training.episode import Episode

IN_A_ROW = 5
"""episodes of one task: another task means a new scene, which takes seconds. A few of these make a usable data set."""
_MAX_ATTEMPTS = 5
"""starts of one episode, where the objects lie so that the hand cannot take one"""
_MAX_DEATHS = 3
"""of the simulator in one episode"""

OpenPrivileged = Callable[[], PrivilegedEnvironment]
OpenPolicy = Callable[[], Policy]


@dataclass(frozen=True, slots=True)
class Request:
    """What to generate."""

    suite: str
    tasks: tuple[int, ...]
    """indices in the suite; empty: all"""
    num_episodes: int
    """of each task"""
    seed: int
    antialiasing: bool
    config: RecordingConfig
    policy: str = ""
    """name and digest of the policy that acts first; empty: the expert alone"""


@dataclass(frozen=True, slots=True)
class Job:
    """One episode to record."""

    task: TaskInfo
    number: int


def recipe_of(request: Request, tasks: Sequence[TaskInfo], versions: Mapping[str, str]) -> Recipe:
    """What makes two data sets equal."""
    config = request.config
    settings = {
        **_flat("variation", asdict(Variation(seed=0))),
        **_flat("recording", asdict(config)),
        **_flat("reward", WEIGHTS),
        "reward.discount": DISCOUNT,
        "expert": VERSION,
        "policy": request.policy,
    }
    del settings["variation.seed"]
    return Recipe(
        suite=request.suite,
        tasks=tuple(TaskEntry(task.index, task.instruction) for task in tasks),
        seed=request.seed,
        size=config.size,
        antialiasing=request.antialiasing,
        picture_every=config.picture_every,
        jpeg_quality=JPEG_QUALITY,
        reward_terms=tuple(WEIGHTS),
        settings=settings,
        versions=dict(versions),
    )


def chosen_tasks(environment: PrivilegedEnvironment, request: Request) -> list[TaskInfo]:
    """Raises InvalidRequest for a suite or a task that does not exist."""
    tasks = environment.tasks(request.suite)
    for index in request.tasks:
        if not 0 <= index < len(tasks):
            raise InvalidRequest("--tasks", f"0 to {len(tasks) - 1}, the tasks of {request.suite}", index)
    return [tasks[index] for index in sorted(set(request.tasks)) or range(len(tasks))]


def jobs_of(tasks: Sequence[TaskInfo], num_episodes: int) -> list[Job]:
    """All episodes in their order: a few of each task, then a few more of each."""
    return [
        Job(task, number)
        for first in range(0, num_episodes, IN_A_ROW)
        for task in tasks
        for number in range(first, min(first + IN_A_ROW, num_episodes))
    ]


def _block(job: Job) -> tuple[int, int]:
    return job.task.index, job.number // IN_A_ROW


class Generation:
    """Fills a folder. `run` may be called again, in another program, after any end of this one."""

    def __init__(
        self,
        request: Request,
        open_environment: OpenPrivileged,
        num_workers: int = 1,
        open_policy: OpenPolicy | None = None,
    ) -> None:
        if request.num_episodes < 1:
            raise InvalidRequest("--episodes", "at least 1", request.num_episodes)
        if num_workers < 1:
            raise InvalidRequest("--workers", "at least 1", num_workers)
        self._request, self._open, self._num_workers = request, open_environment, num_workers
        self._open_policy = open_policy

    def run(self, folder: Path, listener: Callable[[Episode | None, int, int], None]) -> None:
        """`listener` gets each new episode, how many are on disk, and how many will be; at first without an episode.

        Raises InvalidRequest, BundleError, and SimulationError when an episode cannot be recorded.
        """
        with contextlib.closing(self._open()) as first:
            tasks = chosen_tasks(first, self._request)
            recipe = recipe_of(self._request, tasks, first.versions())
            with DatasetWriter(folder, recipe) as writer:
                done = {(info.task, info.number) for info in writer.infos}
                jobs = [
                    job
                    for job in jobs_of(tasks, self._request.num_episodes)
                    if (job.task.index, job.number) not in done
                ]
                total = len(writer.infos) + len(jobs)
                listener(None, len(writer.infos), total)
                try:
                    self._fill(writer, jobs, first, listener, total)
                finally:
                    writer.write_metadata()

    def _fill(
        self,
        writer: DatasetWriter,
        jobs: list[Job],
        first: PrivilegedEnvironment,
        listener: Callable[[Episode | None, int, int], None],
        total: int,
    ) -> None:
        with _Workers(self._request, jobs, self._num_workers, _after(first, self._open), self._open_policy) as workers:
            for count, episode in enumerate(workers.episodes(), 1):
                writer.add(episode)
                listener(episode, len(writer.infos), total)
                if count % (IN_A_ROW * len(writer.recipe.tasks)) == 0:
                    writer.write_metadata()


class _Workers:
    """Threads with a simulator each. A block of episodes of one task goes to one of them, in turn."""

    def __init__(
        self,
        request: Request,
        jobs: list[Job],
        num_workers: int,
        open_environment: OpenPrivileged,
        open_policy: OpenPolicy | None,
    ) -> None:
        self._blocks = [list(block) for _, block in groupby(jobs, key=_block)]
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
        """In the order of the jobs. Raises what a worker raised."""
        for index, block in enumerate(self._blocks):
            for _ in block:
                result = self._results[index % len(self._results)].get()
                if isinstance(result, BaseException):
                    raise result
                yield result

    def __enter__(self) -> _Workers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _work(self, worker: _Worker, blocks: list[list[Job]], results: queue.Queue[Episode | BaseException]) -> None:
        try:
            with contextlib.closing(worker):
                for job in (job for block in blocks for job in block):
                    if not self._put(results, worker.episode(job)):
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

    def episode(self, job: Job) -> Episode:
        for death in range(_MAX_DEATHS):
            try:
                return self._recorded(job)
            except SimulatorDied:
                self.close()
                if death == _MAX_DEATHS - 1:
                    raise
        raise AssertionError("unreachable")

    def _recorded(self, job: Job) -> Episode:
        """From the first start that the hand can begin at."""
        if self._environment is None:
            self._environment = self._open()
        if self._policy is None and self._open_policy is not None:
            self._policy = self._open_policy()
        config, seed = self._request.config, self._request.seed
        if job.task.index not in self._goals:
            self._goals[job.task.index] = goal_pictures(self._environment, job.task, seed, config)
        goals = self._goals[job.task.index]
        for attempt in range(_MAX_ATTEMPTS):
            start = training_start(job.task, job.number, seed, attempt)
            try:
                return record(self._environment, start, job.number, goals, config, self._policy)
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


def _after(first: PrivilegedEnvironment, open_environment: OpenPrivileged) -> OpenPrivileged:
    """Gives the environment that is open already, then new ones."""
    ready = [first]

    def take() -> PrivilegedEnvironment:
        try:
            return ready.pop()
        except IndexError:
            return open_environment()

    return take


def _flat(path: str, table: Mapping[str, object]) -> dict[str, float | str]:
    """Dotted names of all values, as JSON has them."""
    flat: dict[str, float | str] = {}
    for key, value in table.items():
        name = f"{path}.{key}"
        if isinstance(value, Mapping):
            flat |= _flat(name, value)
        elif isinstance(value, tuple):
            flat[name] = " to ".join(str(each) for each in value)
        else:
            flat[name] = value if isinstance(value, int | float | str) else str(value)
    return flat
