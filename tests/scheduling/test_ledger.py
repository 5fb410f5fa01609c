"""The ledger: the worked example of its docstring, number by number, and the moments by which plans are due."""

from __future__ import annotations

import math

import pytest

from tests.clock import ManualClock
from wavserve.scheduling.lateness import MIN_MARGIN_S
from wavserve.scheduling.ledger import Ledger, Ticket, Work


@pytest.fixture
def ledger(clock: ManualClock) -> Ledger:
    """The ledger of an idle device, where no plan waits for a running call."""
    return Ledger(lambda: 0.0, clock)


def enter(ledger: Ledger, deadline: float, work_s: float, fair: float = math.inf) -> Ticket:
    """A plan with its remaining work, scheduled; without `fair` its share pays for it late."""
    ticket = ledger.add(deadline, robot="", starts=0.0)
    ticket.remaining = Work(work_s)
    ledger.schedule(ticket, fair)
    return ticket


def ends_after(ledger: Ledger, clock: ManualClock, *tickets: Ticket) -> list[float]:
    """Predicted ends of plans, in seconds from now."""
    ends = ledger.ends()
    return [ends[ticket.number] - clock.now for ticket in tickets]


def test_the_example_of_the_docstring(ledger: Ledger, clock: ManualClock) -> None:
    one, two, three = (enter(ledger, clock.now + due_s, work_s) for work_s, due_s in ((2, 4), (1, 7), (3, 10)))
    assert ends_after(ledger, clock, one, two, three) == [2, 3, 6]
    assert ledger.late() == {}

    fourth = enter(ledger, clock.now + 6, 3)
    assert ends_after(ledger, clock, one, fourth, two, three) == [2, 5, 6, 9]
    assert ledger.late() == {}

    fifth = enter(ledger, clock.now + 6, 3)
    assert ends_after(ledger, clock, one, fourth, fifth, two, three) == [2, 5, 8, 9, 12]
    assert ledger.late() == pytest.approx({ticket.number: 2 + MIN_MARGIN_S for ticket in (fifth, two, three)})


def test_remaining_work_is_the_sum_of_all_plans(ledger: Ledger, clock: ManualClock) -> None:
    one, other = enter(ledger, clock.now + 4, 2), enter(ledger, clock.now + 7, 1)
    assert ledger.remaining_s == 3
    one.charge(0.5, 0.75)
    assert one.remaining == Work(1.5)
    assert one.used_s == 0.75
    assert ledger.remaining_s == 2.5
    ledger.remove(one)
    ledger.remove(one)
    assert ledger.remaining_s == 1
    assert not one.registered
    assert other.registered


def test_a_plan_not_served_yet_waits_for_the_running_call_and_so_do_those_behind_it(clock: ManualClock) -> None:
    ledger = Ledger(lambda: 0.5, clock)
    served = enter(ledger, clock.now + 4, 2)
    assert ends_after(ledger, clock, served) == [2]  # alone it waits for no call of another plan
    served.charge(1, 1)
    waiting, behind = enter(ledger, clock.now + 7, 1), enter(ledger, clock.now + 8, 1)
    assert ends_after(ledger, clock, served, waiting, behind) == [1, 2.5, 3.5]


def test_a_plan_with_a_deadline_is_due_at_its_fair_moment_when_that_comes_first(
    ledger: Ledger, clock: ManualClock
) -> None:
    by_deadline = enter(ledger, clock.now + 10, 1, fair=clock.now + 20)
    assert by_deadline.due == clock.now + 10
    by_share = enter(ledger, clock.now + 30, 1, fair=clock.now + 20)
    assert by_share.due == clock.now + 20


def test_plans_with_deadlines_keep_the_order_of_their_deadlines(ledger: Ledger, clock: ManualClock) -> None:
    first = enter(ledger, clock.now + 10, 1)
    third = enter(ledger, clock.now + 30, 1, fair=clock.now + 5)  # its share would put it first
    assert third.due == first.due == clock.now + 10
    second = enter(ledger, clock.now + 20, 1)
    assert second.due == clock.now + 10
    assert sorted([third, second, first], key=lambda ticket: ticket.rank) == [first, second, third]


def test_a_plan_without_a_deadline_goes_behind_the_plans_that_it_would_make_late(
    ledger: Ledger, clock: ManualClock
) -> None:
    tight, loose = enter(ledger, clock.now + 3, 1), enter(ledger, clock.now + 60, 1)
    endless = enter(ledger, math.inf, 5, fair=clock.now + 1)
    assert tight.due < endless.due < loose.due
    assert ends_after(ledger, clock, tight, endless, loose) == [1, 6, 7]
    assert ledger.late() == {}
