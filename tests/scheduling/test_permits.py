"""Permits: places kept for requests that are being read, and how they are given up."""

from __future__ import annotations

import asyncio

import pytest

from wavserve.core.errors import Overloaded
from wavserve.scheduling.permits import PERMIT_S, Permit, Permits
from wavserve.scheduling.shares import MIN_RETRY_S


class Running:
    """Plans that run now, and seconds until the first of them ends."""

    def __init__(self) -> None:
        self.count = 0
        self.soonest_s = 0.3


@pytest.fixture
def running() -> Running:
    return Running()


@pytest.fixture
def permits(running: Running) -> Permits:
    """Two places."""
    return Permits(2, lambda: running.count, lambda: running.soonest_s)


def test_a_permit_gives_up_what_it_holds_once() -> None:
    given_up: list[str] = []
    permit = Permit(lambda: given_up.append("time"), lambda: given_up.append("place"))
    permit.release()
    permit.release()
    assert given_up == ["time", "place"]
    Permit().release()


@pytest.mark.parametrize(("soonest_s", "retry_after_s"), [(0.3, 0.3), (0.0, MIN_RETRY_S)])
def test_a_full_policy_refuses_and_says_when_to_ask_again(
    permits: Permits, running: Running, soonest_s: float, retry_after_s: float
) -> None:
    running.count, running.soonest_s = 1, soonest_s
    permits.check_room()
    running.count = 2
    with pytest.raises(Overloaded, match="the limit of 2 plans and pending requests is reached") as refused:
        permits.check_room()
    assert refused.value.retry_after_s == retry_after_s


async def test_a_request_being_read_takes_a_place_until_its_block_ends(permits: Permits, running: Running) -> None:
    running.count = 1
    with permits.keep(), pytest.raises(Overloaded):
        permits.check_room()
    permits.check_room()


async def test_an_error_gives_the_place_up(permits: Permits, running: Running) -> None:
    running.count, given_up = 1, []
    with pytest.raises(ZeroDivisionError), permits.keep(lambda: given_up.append("time")):
        raise ZeroDivisionError
    assert given_up == ["time"]
    permits.check_room()


async def test_a_plan_takes_the_place_of_its_permit_over(permits: Permits, running: Running) -> None:
    """The permit keeps what else it holds until it is released."""
    given_up: list[str] = []
    running.count = 1
    with permits.keep(lambda: given_up.append("time")) as permit:
        permits.take_over(permit)
        running.count = 2
        assert given_up == []
        with pytest.raises(Overloaded):
            permits.check_room()
        permit.release()
        assert given_up == ["time"]
    assert given_up == ["time"]


async def test_a_permit_that_was_released_has_no_place_to_take_over(permits: Permits, running: Running) -> None:
    running.count = 1
    with permits.keep() as permit:
        permit.release()
        running.count = 2
        with pytest.raises(Overloaded):
            permits.take_over(permit)


def test_a_plan_without_a_permit_takes_a_free_place(permits: Permits, running: Running) -> None:
    running.count = 1
    permits.take_over(Permit())
    running.count = 2
    with pytest.raises(Overloaded):
        permits.take_over(Permit())


async def test_a_permit_expires(permits: Permits, running: Running) -> None:
    given_up: list[str] = []
    running.count = 1
    with permits.keep(lambda: given_up.append("time")):
        await asyncio.sleep(1.05 * PERMIT_S)
        assert given_up == ["time"]
        permits.check_room()
    assert given_up == ["time"]
