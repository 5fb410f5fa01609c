"""Decode threads: shares of senders, deadlines while work waits and runs, and work that nobody wants any more."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import pytest

from tests.clock import ManualClock, yield_to_loop
from wavserve.core.errors import DeadlineExceeded, InvalidRequest
from wavserve.edge.decode_threads import DecodeThreads


@dataclass
class Blocker:
    """Work that lasts until it is released, and notes who began."""

    released: threading.Event = field(default_factory=threading.Event)
    began: list[str] = field(default_factory=list)

    def work(self, name: str) -> str:
        self.began.append(name)
        self.released.wait(30)
        return name

    async def until_began(self, *names: str) -> None:
        async with asyncio.timeout(30):
            while sorted(self.began) != sorted(names):  # noqa: ASYNC110 - threads note it
                await asyncio.sleep(0.001)


@pytest.fixture
def blocker() -> Iterator[Blocker]:
    blocker = Blocker()
    yield blocker
    blocker.released.set()


def ask(threads: DecodeThreads, blocker: Blocker, name: str, deadline: float | None = None) -> asyncio.Task[str]:
    """Work called `name`; its first letter is the sender."""
    return asyncio.create_task(threads.run(lambda: blocker.work(name), name[0], deadline))


async def test_one_sender_has_half_of_the_threads(blocker: Blocker) -> None:
    threads = DecodeThreads(4)
    tasks = [ask(threads, blocker, name) for name in ("a1", "a2", "a3", "a4", "b1", "c1", "c2")]
    await blocker.until_began("a1", "a2", "b1", "c1")
    blocker.released.set()
    assert await asyncio.gather(*tasks) == ["a1", "a2", "a3", "a4", "b1", "c1", "c2"]


async def test_a_single_thread_serves_everybody(blocker: Blocker) -> None:
    threads = DecodeThreads(1)
    tasks = [ask(threads, blocker, name) for name in ("a1", "a2", "b1")]
    blocker.released.set()
    assert await asyncio.gather(*tasks) == ["a1", "a2", "b1"]
    assert blocker.began == ["a1", "a2", "b1"]


async def test_a_deadline_ends_the_wait_while_the_work_runs(blocker: Blocker) -> None:
    clock = ManualClock()
    threads = DecodeThreads(1, clock)
    with pytest.raises(DeadlineExceeded):
        await ask(threads, blocker, "a1", clock.now + 0.05)
    assert not blocker.released.is_set()


async def test_a_deadline_ends_the_wait_for_a_thread(blocker: Blocker) -> None:
    clock = ManualClock()
    threads = DecodeThreads(1, clock)
    busy = ask(threads, blocker, "a1")
    with pytest.raises(DeadlineExceeded):
        await ask(threads, blocker, "b1", clock.now + 0.05)
    blocker.released.set()
    await busy
    assert blocker.began == ["a1"]


async def test_late_work_is_never_begun(blocker: Blocker) -> None:
    clock = ManualClock()
    threads = DecodeThreads(1, clock)
    busy, waiting = ask(threads, blocker, "a1"), ask(threads, blocker, "b1", clock.now + 600)
    await blocker.until_began("a1")
    clock.now += 601
    blocker.released.set()
    assert await busy == "a1"
    with pytest.raises(DeadlineExceeded):
        await waiting
    assert blocker.began == ["a1"]


async def test_a_deadline_in_the_past_begins_nothing(blocker: Blocker) -> None:
    clock = ManualClock()
    with pytest.raises(DeadlineExceeded):
        await ask(DecodeThreads(1, clock), blocker, "a1", clock.now - 1)
    assert blocker.began == []


async def test_work_whose_caller_left_is_never_begun(blocker: Blocker) -> None:
    threads = DecodeThreads(1)
    busy, left, last = (ask(threads, blocker, name) for name in ("a1", "b1", "c1"))
    await blocker.until_began("a1")
    await yield_to_loop()
    left.cancel()
    await asyncio.wait([left])
    blocker.released.set()
    assert await asyncio.gather(busy, last) == ["a1", "c1"]
    assert blocker.began == ["a1", "c1"]


async def test_a_caller_who_leaves_while_work_runs_frees_the_thread_at_its_end(blocker: Blocker) -> None:
    threads = DecodeThreads(1)
    left, last = ask(threads, blocker, "a1"), ask(threads, blocker, "a2")
    await blocker.until_began("a1")
    left.cancel()
    await asyncio.wait([left])
    await yield_to_loop()
    assert blocker.began == ["a1"]
    blocker.released.set()
    assert await last == "a2"


async def test_errors_reach_the_caller_and_free_the_thread() -> None:
    def failing() -> None:
        raise InvalidRequest("images.top.data", "a complete JPEG", "half of one")

    def late() -> None:
        raise TimeoutError

    threads = DecodeThreads(1)
    for work, kind in ((failing, InvalidRequest), (late, TimeoutError), (failing, InvalidRequest)):
        with pytest.raises(kind):
            await threads.run(work, "a", None)


async def test_one_thread_does_works_in_turn() -> None:
    def thread() -> int:
        return threading.get_ident()

    first, second, number = await DecodeThreads(4).run_in_turn((thread, thread, lambda: 7), "a", None)
    assert first == second != thread()
    assert number == 7


async def test_works_in_turn_end_with_the_first_that_fails() -> None:
    began: list[str] = []

    def failing() -> None:
        began.append("failing")
        raise InvalidRequest("images.top.data", "a complete JPEG", "half of one")

    with pytest.raises(InvalidRequest):
        await DecodeThreads(1).run_in_turn((failing, lambda: began.append("next")), "a", None)
    assert began == ["failing"]


async def test_no_work_in_turn_begins_once_its_caller_has_left(blocker: Blocker) -> None:
    threads = DecodeThreads(1)
    works = [partial(blocker.work, name) for name in ("a1", "a2")]
    left = asyncio.create_task(threads.run_in_turn(works, "a", None))
    await blocker.until_began("a1")
    left.cancel()
    await asyncio.wait([left])
    blocker.released.set()
    assert await ask(threads, blocker, "b1") == "b1"
    assert blocker.began == ["a1", "b1"]


async def test_no_work_in_turn_begins_after_the_deadline(blocker: Blocker) -> None:
    clock = ManualClock()
    threads = DecodeThreads(1, clock)
    works = [partial(blocker.work, name) for name in ("a1", "a2")]
    with pytest.raises(DeadlineExceeded):
        await threads.run_in_turn(works, "a", clock.now + 0.05)
    blocker.released.set()
    assert await ask(threads, blocker, "b1") == "b1"
    assert blocker.began in (["a1", "b1"], ["b1"])  # a busy machine may not begin the first in time
