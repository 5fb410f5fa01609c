"""The threads on which requests are parsed and their images decoded: shared fairly, and never beyond a deadline.

A caller is answered at its deadline even while its work runs. Work that waits is not begun once its caller has left or
its deadline has passed. One sender has at most half of the threads, so that no sender delays all others. Knows nothing
of what the work is.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import monotonic
from typing import Any, TypeVar

from wavserve.core.errors import DeadlineExceeded
from wavserve.core.types import Clock

T = TypeVar("T")

_MIN_THREADS = 4


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """Works that wait or run. `answer` is done early when its caller has left or its deadline has passed."""

    works: Sequence[Callable[[], Any]]
    sender: str
    deadline: float | None
    answer: asyncio.Future[Any]


class DecodeThreads:
    """Runs blocking work for callers of one event loop. The threads end when it is garbage-collected."""

    def __init__(self, num_threads: int | None = None, clock: Clock = monotonic) -> None:
        """`num_threads`: None means one per core that this process may use, and at least four."""
        self._num_threads = num_threads or max(_MIN_THREADS, _num_cores())
        self._max_per_sender = max(1, self._num_threads // 2)
        self._clock = clock
        self._threads = ThreadPoolExecutor(self._num_threads, "decode")
        self._waiting: list[_Job] = []  # in the order of arrival
        self._running: Counter[str] = Counter()  # jobs by sender

    async def run(self, work: Callable[[], T], sender: str, deadline: float | None) -> T:
        """The result of `work`. `deadline`: absolute, in seconds of the clock.

        Raises what `work` raises, and DeadlineExceeded at the deadline whether the work waits or runs.
        """
        (result,) = await self.run_in_turn((work,), sender, deadline)
        return result

    async def run_in_turn(self, works: Sequence[Callable[[], T]], sender: str, deadline: float | None) -> Sequence[T]:
        """The results of works that one thread does in turn. `sender`, `deadline` and errors are those of `run`.

        A work that fails is the last. None begins once the caller has left or the deadline has passed.
        """
        loop = asyncio.get_running_loop()
        job = _Job(works, sender, deadline, loop.create_future())
        timer = None if deadline is None else loop.call_later(deadline - self._clock(), _expire, job)
        self._waiting.append(job)
        self._begin_next()
        try:
            results: Sequence[T] = await job.answer
            return results
        finally:
            job.answer.cancel()
            if timer is not None:
                timer.cancel()

    def _begin_next(self) -> None:
        """Begins waiting work, oldest first, as far as threads and their senders' shares allow."""
        for job in tuple(self._waiting):
            if self._running.total() == self._num_threads:
                return
            if self._running[job.sender] < self._max_per_sender:
                self._waiting.remove(job)
                self._begin(job)

    def _begin(self, job: _Job) -> None:
        if job.answer.done():
            return
        if job.deadline is not None and self._clock() >= job.deadline:
            job.answer.set_exception(_late())
            return
        self._running[job.sender] += 1
        self._threads.submit(self._work, job, asyncio.get_running_loop())

    def _work(self, job: _Job, loop: asyncio.AbstractEventLoop) -> None:
        """Runs on a thread. The loop hears of the end at once, without a future of the executor in between."""
        results, error = [], None
        try:
            for work in job.works:
                if job.answer.done():
                    break  # nobody reads the results
                results.append(work())
        except BaseException as raised:  # noqa: BLE001  # the caller gets it, whatever it is
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed, and its callers are gone
            loop.call_soon_threadsafe(self._on_done, job, results, error)

    def _on_done(self, job: _Job, results: list[Any], error: BaseException | None) -> None:
        self._running[job.sender] -= 1
        if not self._running[job.sender]:
            del self._running[job.sender]
        if not job.answer.done():
            if error is None:
                job.answer.set_result(results)
            else:
                job.answer.set_exception(error)
        self._begin_next()


def _expire(job: _Job) -> None:
    if not job.answer.done():
        job.answer.set_exception(_late())


def _late() -> DeadlineExceeded:
    return DeadlineExceeded("the deadline passed before the request was parsed and its images were decoded")


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
