"""The log says once that the shared store fails, and once that it serves again."""

from __future__ import annotations

import logging

import pytest

from tests.clock import ManualClock
from wavserve.policy.store_state import FULL_S, StoreState


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def state(clock: ManualClock, caplog: pytest.LogCaptureFixture) -> StoreState:
    caplog.set_level(logging.INFO)
    return StoreState("robots wait", clock)


def test_a_store_that_fails_and_serves_again_is_told_once_each(
    state: StoreState, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    state.served(wrote=True)
    for writing in (False, True, False):
        state.failed("Redis did not answer", writing)
    clock.now += 2.5
    state.served(wrote=True)
    state.served(wrote=False)
    assert [(each.levelname, each.message) for each in caplog.records] == [
        ("WARNING", "Redis did not answer. Until it serves again, robots wait"),
        ("INFO", "Redis (sessions.url) serves again, after 2.5 s"),
    ]


def test_a_read_says_nothing_of_a_store_whose_writes_fail(state: StoreState, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        state.served(wrote=False)
        state.failed("Redis refused a call", writing=True)
    assert len(caplog.records) == 1
    state.served(wrote=True)
    assert len(caplog.records) == 2


def test_a_read_is_enough_where_only_reads_failed(state: StoreState, caplog: pytest.LogCaptureFixture) -> None:
    state.failed("Redis did not answer", writing=False)
    state.served(wrote=False)
    assert len(caplog.records) == 2


def test_a_store_that_is_full_and_has_room_again_is_told_once_each(
    state: StoreState, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    assert not state.is_full
    for _ in range(3):
        state.filled()
        state.served(wrote=False)
    assert state.is_full
    clock.now += 4
    state.served(wrote=True)
    assert not state.is_full
    assert [(each.levelname, each.message) for each in caplog.records] == [
        ("WARNING", "Redis (sessions.url) is full (maxmemory). Until it has room, plans are refused"),
        ("INFO", "Redis (sessions.url) has room again, after 4.0 s"),
    ]


def test_one_try_at_a_time_tells_whether_there_is_room(state: StoreState, clock: ManualClock) -> None:
    state.filled()
    assert not state.begin_try()
    clock.now += FULL_S
    assert [state.begin_try() for _ in range(3)] == [True, False, False]
    clock.now += FULL_S / 2
    state.filled()
    clock.now += FULL_S / 2
    assert not state.begin_try()


def test_a_store_that_fails_is_full_no_more_and_one_that_is_full_fails_no_more(
    state: StoreState, caplog: pytest.LogCaptureFixture
) -> None:
    state.filled()
    state.failed("Redis did not answer", writing=True)
    assert not state.is_full
    state.filled()
    state.served(wrote=True)
    told = ["is full", "did not answer", "serves again", "is full", "has room again"]
    assert all(text in each.message for text, each in zip(told, caplog.records, strict=True))
