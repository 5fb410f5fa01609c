"""Shares of a device: the worked example of the docstring, number by number, and what follows from a shortage."""

from __future__ import annotations

import math

import pytest

from tests.clock import ManualClock
from wavserve.core.errors import Overloaded
from wavserve.scheduling.ledger import Ticket
from wavserve.scheduling.shares import MAX_RETRY_S, MIN_RETRY_S, PATIENCE_S, Shares

PLANNING = {"A", "B"}


@pytest.fixture
def shares(clock: ManualClock) -> Shares:
    return Shares(clock)


def paid_for(shares: Shares, robot: str, used_s: float) -> None:
    """Charges a robot for a plan that ended, with A and B on the device."""
    shares.settle(Ticket(robot=robot, starts=shares.start(robot)), used_s, PLANNING)


def test_the_example_of_the_docstring(shares: Shares, clock: ManualClock) -> None:
    zero = clock.now
    plan_a = Ticket(robot="A", starts=shares.start("A"))
    plan_a.charge(predicted_s=3, used_s=3)
    assert shares.fair(plan_a, 0, PLANNING) - zero == 6

    clock.now = zero + 3
    shares.settle(plan_a, plan_a.used_s, PLANNING)
    next_a, plan_b = (Ticket(robot=robot, starts=shares.start(robot)) for robot in "AB")
    assert (next_a.starts - zero, plan_b.starts - zero) == (6, 3)
    next_a.due, plan_b.due = (shares.fair(ticket, 1, PLANNING) for ticket in (next_a, plan_b))
    assert (next_a.due - zero, plan_b.due - zero) == (8, 5)
    assert plan_b.rank < next_a.rank


def test_plans_of_a_robot_at_one_time_are_all_charged(shares: Shares, clock: ManualClock) -> None:
    zero = clock.now
    plans = [Ticket(robot="A", starts=shares.start("A")) for _ in range(2)]
    for plan in plans:
        shares.settle(plan, 1.0, PLANNING)
    assert shares.start("A") - zero == 4


def test_a_late_charge_comes_on_top_of_what_the_plan_was_charged_before(shares: Shares, clock: ManualClock) -> None:
    zero, plan = clock.now, Ticket(robot="A", starts=shares.start("A"))
    clock.now = zero + 4.0
    shares.settle(plan, 1.9, PLANNING)
    assert shares.start("A") == clock.now, "3.8 s are paid"
    clock.now = zero + 5.2
    shares.settle(plan, 1.5, PLANNING)
    assert shares.start("A") - zero == pytest.approx(2 * (1.9 + 1.5))


def test_a_share_that_was_not_used_is_lost(shares: Shares, clock: ManualClock) -> None:
    """A robot that paused starts from now and has saved nothing."""
    paid_for(shares, "A", used_s=1)
    clock.now += 10
    assert shares.start("A") == clock.now


def test_a_robot_beyond_its_share_is_refused_while_another_is_refused(shares: Shares, clock: ManualClock) -> None:
    paid_for(shares, "A", used_s=3)
    shares.check("A", clock.now + 9)  # nobody is refused
    shares.refusal("B", "too late", retry_s=1.0)
    with pytest.raises(Overloaded, match=r"is beyond its share of the device for 6\.000 s more") as refused:
        shares.check("A", clock.now + 9)
    assert refused.value.retry_after_s == MAX_RETRY_S
    shares.check("A", math.inf)  # a plan without a deadline may wait in line
    shares.check("B", clock.now + 9)
    clock.now += 1.0 + PATIENCE_S
    shares.check("A", clock.now + 9)  # B did not ask again


@pytest.mark.parametrize(("retry_s", "answered_s"), [(0.0, MIN_RETRY_S), (1.0, 1.0), (60.0, MAX_RETRY_S)])
def test_a_refusal_says_when_to_ask_again(shares: Shares, retry_s: float, answered_s: float) -> None:
    error = shares.refusal("A", "too late", retry_s, ready_s=4.0)
    assert (error.message, error.retry_after_s, error.predicted_s) == ("too late", answered_s, 4.0)


def test_a_refused_robot_shares_the_device_until_it_is_no_longer_expected(shares: Shares, clock: ManualClock) -> None:
    ticket = Ticket(robot="A", starts=shares.start("A"))
    shares.refusal("B", "too late", retry_s=1.0)
    assert shares.fair(ticket, 1, {"A"}) - clock.now == 2
    clock.now += 1.0 + PATIENCE_S
    assert shares.fair(ticket, 1, {"A"}) - ticket.starts == 1


def test_spare_time_goes_first_to_robots_short_of_iterations(shares: Shares, clock: ManualClock) -> None:
    paid_for(shares, "A", used_s=3)
    ahead, behind = (Ticket(robot=robot, starts=shares.start(robot)) for robot in "AB")
    assert not shares.others_first(ahead)
    shares.note_iteration("B", granted=False)
    assert shares.others_first(ahead)
    assert not shares.others_first(behind)
    shares.note_iteration("B", granted=True)
    assert not shares.others_first(ahead)
    shares.note_iteration("B", granted=False)
    clock.now += PATIENCE_S
    assert not shares.others_first(ahead)
