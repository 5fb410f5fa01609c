"""The arena's rules under random use: a slot in use is never reallocated, and no slot is lost forever."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.clock import ManualClock
from wavserve.core.errors import ArenaFull
from wavserve.models.arena.book import ArenaBook, ArenaRole, Cells

actions = st.lists(
    st.tuples(
        st.sampled_from(["allocate", "publish", "release", "pin", "unpin", "abandon", "wait"]), st.integers(0, 9)
    ),
    max_size=60,
)


@given(actions)
def test_slots_in_use_are_never_reallocated(steps: list[tuple[str, int]]) -> None:
    """In use means that a slot is being written, is pinned, or is leased and not released."""
    clock = ManualClock()
    book = ArenaBook(6, lease_s=10.0, clock=clock)
    writing: list[np.ndarray] = []
    written: list[np.ndarray] = []
    pins: list[tuple[np.ndarray, object]] = []
    for action, number in steps:
        if action == "allocate":
            try:
                handles = book.allocate(number % 3 + 1)
            except ArenaFull:
                continue
            held = {int(s) for group in writing for s, _ in group} | {int(s) for group, _ in pins for s, _ in group}
            assert not held & {int(s) for s in handles[:, 0]}
            assert not book.current(handles)
            writing.append(handles)
        elif action in ("publish", "abandon") and writing:
            handles = writing.pop(number % len(writing))
            getattr(book, action)(handles)
            assert book.current(handles) == (action == "publish")
            if action == "publish":
                written.append(handles)
        elif action == "release" and written:
            handles = written.pop(number % len(written))
            book.release(handles, ArenaRole.VALUE)
            assert not book.current(handles)
        elif action == "pin" and written:
            handles = written[number % len(written)]
            if book.current(handles) and not any(group is handles for group, _ in pins):
                pin = book.pin(handles, ArenaRole.VALUE)
                pin.__enter__()
                pins.append((handles, pin))
        elif action == "unpin" and pins:
            pins.pop(number % len(pins))[1].__exit__(None, None, None)  # type: ignore[attr-defined]
        elif action == "wait":
            clock.now += number
    for _, pin in pins:
        pin.__exit__(None, None, None)  # type: ignore[attr-defined]
    for handles in writing:
        book.abandon(handles)
    clock.now += 11
    assert book.used == 0
    assert len(book.allocate(6)) == 6


def test_a_slice_gets_all_its_slots_or_none() -> None:
    book = ArenaBook(4, lease_s=10.0)
    book.allocate(3)
    with pytest.raises(ArenaFull, match=r"2 slots wanted, 1 of 4"):
        book.allocate(2)
    assert book.used == 3


def test_slots_are_consecutive_where_possible() -> None:
    book = ArenaBook(6, lease_s=10.0)
    singles = [book.allocate(1) for _ in range(6)]
    for index in (0, 2, 3, 4):
        book.abandon(singles[index])
    assert book.allocate(3)[:, 0].tolist() == [2, 3, 4]


def test_scattered_slots_are_allocated_when_none_are_consecutive() -> None:
    book = ArenaBook(4, lease_s=10.0)
    singles = [book.allocate(1) for _ in range(4)]
    book.abandon(singles[0])
    book.abandon(singles[2])
    assert book.allocate(2)[:, 0].tolist() == [0, 2]


def test_a_slot_with_an_expired_lease_is_reallocated_only_when_nobody_reads_it() -> None:
    clock = ManualClock()
    book = ArenaBook(1, lease_s=10.0, clock=clock)
    handles = book.allocate(1)
    book.publish(handles)
    clock.now += 11
    with book.pin(handles, ArenaRole.VALUE), pytest.raises(ArenaFull):
        book.allocate(1)
    again = book.allocate(1)
    book.publish(again)
    assert not book.current(handles)
    assert book.current(again)


def test_a_late_writer_keeps_its_slot_past_the_lease() -> None:
    """The slot of a cancelled writer is in quarantine until the writer abandons it."""
    clock = ManualClock()
    book = ArenaBook(1, lease_s=10.0, clock=clock)
    handles = book.allocate(1)
    clock.now += 100
    with pytest.raises(ArenaFull):
        book.allocate(1)
    book.abandon(handles)
    assert book.allocate(1)[0, 1] == handles[0, 1] + 1


def test_a_stale_release_does_not_free_the_slots_next_owner() -> None:
    book = ArenaBook(1, lease_s=10.0)
    old = book.allocate(1)
    book.publish(old)
    book.release(old, ArenaRole.VALUE)
    new = book.allocate(1)
    book.publish(new)
    book.release(old, ArenaRole.ACTION)
    assert book.current(new)
    assert book.used == 1


@pytest.mark.parametrize("handle", [[-1, 1], [4, 1], [0, 7]])
def test_handles_that_were_never_allocated_are_stale(handle: list[int]) -> None:
    book = ArenaBook(4, lease_s=10.0)
    book.publish(book.allocate(4))
    handles = np.array([handle])
    assert not book.current(handles)
    book.release(handles, ArenaRole.VALUE)
    assert book.used == 4


def test_an_arena_without_slots_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        ArenaBook(0, lease_s=1.0)


def test_a_pin_during_an_allocation_keeps_its_slot() -> None:
    """A reader pins between the allocator's check and its claim. The allocation fails, and the handle becomes stale."""
    cells = Cells.over(bytearray(Cells.nbytes(1)), 1)
    now = [100.0]
    book, late = (ArenaBook(1, 10.0, lambda: now[0], cells) for _ in range(2))
    handles = book.allocate(1)
    book.publish(handles)
    now[0] += 11
    reader = ExitStack()
    pinned_at_claim = cells.generation.view(ClaimedColumn)
    pinned_at_claim.before_claim = lambda: reader.enter_context(late.pin(handles, ArenaRole.VALUE))
    allocator = ArenaBook(1, 10.0, lambda: now[0], replace(cells, generation=pinned_at_claim))
    with reader:
        with pytest.raises(ArenaFull, match="a reader pinned a slot"):
            allocator.allocate(1)
        assert not late.current(handles)  # the reader learns it, and nobody overwrites what it reads
    assert len(book.allocate(1)) == 1


class ClaimedColumn(np.ndarray):
    """Generations of slots; `before_claim` runs just before an allocator writes new ones."""

    before_claim: Callable[[], None]

    def __setitem__(self, slots: object, generations: object) -> None:
        self.before_claim()
        super().__setitem__(slots, generations)
