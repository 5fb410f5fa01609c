"""The admission on a clock that the test moves: the order of plans, refusals, iterations and shares."""

from __future__ import annotations

import math

import pytest

from tests.clock import ManualClock
from wavserve.core.errors import DeadlineExceeded, Overloaded
from wavserve.scheduling.admission import Admission, Demand
from wavserve.scheduling.lateness import MIN_MARGIN_S
from wavserve.scheduling.ledger import Ticket, Work
from wavserve.scheduling.shares import MAX_RETRY_S

INF = math.inf


def order(*tickets: Ticket) -> list[str]:
    return [ticket.robot for ticket in sorted(tickets, key=lambda ticket: ticket.rank)]


def test_earliest_deadline_first_then_first_come(admission: Admission, clock: ManualClock) -> None:
    late, soon, later, soon_too = (
        admission.admit(Demand(name, Work(0.01), Work(0.1)), clock.now + within)
        for name, within in (("late", 5.0), ("soon", 2.0), ("later", 9.0), ("soon too", 2.0))
    )
    assert order(late, soon, later, soon_too) == ["soon", "soon too", "late", "later"]


def test_a_plan_that_would_be_late_is_refused_with_its_predicted_end(admission: Admission, clock: ManualClock) -> None:
    for robot in "abc":
        admission.admit(Demand(robot, Work(1.0), Work(9.0)), clock.now + 3.5)
    with pytest.raises(Overloaded) as refused:
        admission.admit(Demand("d", Work(1.0), Work(9.0)), clock.now + 3.6)
    assert refused.value.predicted_s == pytest.approx(4.0)
    assert refused.value.retry_after_s == pytest.approx(0.4 + MIN_MARGIN_S)
    clock.now += 0.1
    assert admission.remaining_s == 3.0  # the refused plan left nothing behind
    admission.admit(Demand("e", Work(1.0), Work(9.0)), clock.now + 9.0)


def test_a_plan_that_would_make_another_late_is_refused(admission: Admission, clock: ManualClock) -> None:
    admission.admit(Demand("a", Work(2.0), Work(2.0)), clock.now + 4.5)
    admission.admit(Demand("b", Work(2.0), Work(2.0)), clock.now + 4.0)
    with pytest.raises(Overloaded):
        admission.admit(Demand("c", Work(1.0), Work(1.0)), clock.now + 3.0)


def test_a_deadline_that_no_plan_ever_met_is_not_an_overload(admission: Admission, clock: ManualClock) -> None:
    with pytest.raises(DeadlineExceeded, match=r"0\.900 s are left, and a plan takes 1\.000 s at the least"):
        admission.admit(Demand("a", Work(1.5), Work(9.0), least_s=1.0), clock.now + 0.9)


def test_a_plan_that_a_slow_idle_device_would_make_late_may_be_retried(
    admission: Admission, clock: ManualClock
) -> None:
    with pytest.raises(Overloaded) as refused:
        admission.admit(Demand("a", Work(1.5), Work(9.0), least_s=1.0), clock.now + 1.2)
    assert refused.value.predicted_s == pytest.approx(1.5 + MIN_MARGIN_S)
    assert refused.value.retry_after_s == MAX_RETRY_S
    patient = admission.admit(Demand("b", Work(1.5), Work(9.0)), clock.now + 90.0)
    assert admission.grant(patient, Work(1.5), Work(1.5)), "a refusal would help no other plan"


def test_a_plan_waits_for_the_running_call(clock: ManualClock) -> None:
    admission = Admission(lambda: 0.5, clock)
    admission.admit(Demand("a", Work(1.0), Work(1.0)), clock.now + 9.0)
    with pytest.raises(Overloaded):
        admission.admit(Demand("b", Work(1.0), Work(1.0)), clock.now + 1.4)


def test_a_plan_ends_no_sooner_than_its_own_calls_last(admission: Admission, clock: ManualClock) -> None:
    """Its calls follow each other, and calls of other plans run beside them and join them."""
    with pytest.raises(Overloaded) as refused:
        admission.admit(Demand("a", Work(1.0, 3.0), Work(9.0, 27.0)), clock.now + 2.0)
    assert refused.value.predicted_s == pytest.approx(3.0 + MIN_MARGIN_S)
    first = admission.admit(Demand("a", Work(1.0, 3.0), Work(9.0, 27.0)), clock.now + 3.1)
    second = admission.admit(Demand("b", Work(1.0, 3.0), Work(9.0, 27.0)), clock.now + 4.5)  # behind 1 s of work
    assert not admission.grant(second, Work(0.5, 2.1), Work(0.5, 1.5))
    assert second.remaining == Work(0.5, 1.5)
    first.charge(0.5, 0.5)
    assert first.remaining == Work(0.5, 1.5), "half of it is done"
    assert admission.grant(second, Work(0.5, 2.1), Work(0.5, 1.5))


def test_a_plan_that_leaves_unused_leaves_nothing_behind(admission: Admission, clock: ManualClock) -> None:
    admission.leave(admission.admit(Demand("a", Work(1.0), Work(1.0)), clock.now + 2.0))
    assert admission.remaining_s == 0.0
    admission.admit(Demand("a", Work(1.0), Work(1.0)), clock.now + 2.0)
    with pytest.raises(Overloaded):
        admission.admit(Demand("b", Work(1.0), Work(1.0)), clock.now + 1.5)


def test_iterations_are_granted_while_no_plan_becomes_late_by_them(admission: Admission, clock: ManualClock) -> None:
    lone = admission.admit(Demand("lone", Work(1.0), Work(9.0)), clock.now + 4.5)
    assert admission.grant(lone, Work(1.0), Work(1.0))
    clock.now += 1.0
    lone.charge(1.0, 1.0)
    assert admission.grant(lone, Work(1.0), Work(1.0))
    other = admission.admit(Demand("other", Work(1.5), Work(1.5)), clock.now + 3.6)  # behind the granted iteration
    clock.now += 1.0
    lone.charge(1.0, 1.0)
    assert not admission.grant(lone, Work(1.0), Work(1.0))
    assert lone.remaining == Work(1.0)
    assert admission.remaining_s == 2.5
    assert not admission.grant(other, Work(0.5), Work(1.5))


def test_a_plan_without_a_deadline_gets_every_iteration(admission: Admission, clock: ManualClock) -> None:
    endless = admission.admit(Demand("endless", Work(1.0), Work(5.0)), INF)
    admission.admit(Demand("other", Work(1.0), Work(1.0)), clock.now + 1.5)
    assert endless.remaining == Work(5.0)
    assert admission.grant(endless, Work(1.0), Work(4.0))


def test_a_plan_without_a_deadline_yields_only_to_plans_that_it_would_make_late(
    admission: Admission, clock: ManualClock
) -> None:
    tight = admission.admit(Demand("tight", Work(1.0), Work(1.0)), clock.now + 3.0)
    loose = admission.admit(Demand("loose", Work(1.0), Work(20.0)), clock.now + 60.0)
    endless = admission.admit(Demand("endless", Work(5.0), Work(5.0)), INF)
    assert order(tight, loose, endless) == ["tight", "endless", "loose"]
    assert admission.grant(endless, Work(1.0), Work(3.0))
    assert order(tight, loose, endless) == ["tight", "endless", "loose"]


def test_a_far_deadline_goes_by_its_share_and_behind_earlier_deadlines(
    admission: Admission, clock: ManualClock
) -> None:
    endless = admission.admit(Demand("endless", Work(1.0), Work(20.0)), INF)
    far = admission.admit(Demand("far", Work(1.0), Work(8.0)), clock.now + 90.0)
    assert order(endless, far) == ["far", "endless"]  # its share has paid for it sooner
    farther = admission.admit(Demand("farther", Work(1.0), Work(2.0)), clock.now + 99.0)
    assert order(endless, far, farther) == ["far", "farther", "endless"]  # by its share alone it would be first
    before = admission.admit(Demand("before", Work(1.0), Work(70.0)), clock.now + 80.0)
    assert order(endless, far, farther, before) == ["before", "far", "farther", "endless"]


def test_without_deadlines_a_short_plan_goes_before_a_long_one(admission: Admission, clock: ManualClock) -> None:
    long = admission.admit(Demand("long", Work(9.0), Work(9.0)), INF)
    clock.now += 1.0
    short = admission.admit(Demand("short", Work(0.1), Work(0.1)), INF)
    assert order(long, short) == ["short", "long"]


def test_without_deadlines_a_robot_beyond_its_share_goes_last(admission: Admission, clock: ManualClock) -> None:
    admission.admit(Demand("modest", Work(0.5), Work(0.5)), INF)
    greedy = admission.admit(Demand("greedy", Work(2.0), Work(2.0)), INF)
    greedy.charge(2.0, 2.0)
    clock.now += 2.0
    admission.leave(greedy)
    again = admission.admit(Demand("greedy", Work(0.1), Work(0.1)), INF)
    other = admission.admit(Demand("other", Work(0.5), Work(0.5)), INF)
    assert order(again, other) == ["other", "greedy"]


def test_a_call_that_outlives_its_plan_is_charged_to_its_robot(admission: Admission, clock: ManualClock) -> None:
    """A client that asks and hangs up during its first call has used the device all the same."""
    admission.admit(Demand("modest", Work(0.5), Work(0.5)), INF)
    for _ in range(2):
        greedy = admission.admit(Demand("greedy", Work(2.0), Work(2.0)), INF)
        admission.leave(greedy)
        assert greedy.robot not in {each.robot for each in admission.standings() if each.num_plans}
        clock.now += 1.0
        greedy.charge(0.0, 1.0)
    [beyond_s] = [each.beyond_s for each in admission.standings() if each.robot == "greedy"]
    assert beyond_s == pytest.approx(2.0), "two seconds of a device that two robots share, in two seconds"


def test_while_a_robot_is_refused_shares_count(admission: Admission, clock: ManualClock) -> None:
    """A robot beyond its share is refused too, and no plan with a deadline is granted an iteration."""
    greedy = admission.admit(Demand("greedy", Work(2.0), Work(2.0)), clock.now + 2.5)
    busy = admission.admit(Demand("busy", Work(0.2), Work(2.0)), clock.now + 9.0)
    clock.now += 1.9
    greedy.charge(1.9, 1.9)
    with pytest.raises(Overloaded, match="would be ready"):
        admission.admit(Demand("refused", Work(0.55), Work(0.55)), clock.now + 0.6)
    assert not admission.grant(busy, Work(0.1), Work(0.2))
    admission.leave(greedy)
    with pytest.raises(Overloaded, match="is beyond its share"):
        admission.admit(Demand("greedy", Work(0.1), Work(0.1)), clock.now + 9.0)
    admission.admit(Demand("refused", Work(0.55), Work(0.55)), clock.now + 0.6)
    assert not admission.grant(busy, Work(0.1), Work(0.2)), "greedy was refused in the meantime"
    clock.now += 6.0
    assert admission.grant(busy, Work(0.1), Work(0.2)), "no refused robot is expected to ask again"


def test_plans_that_end_late_raise_the_margin(admission: Admission, clock: ManualClock) -> None:
    for _ in range(60):
        ticket = admission.admit(Demand("a", Work(0.1), Work(0.1)), clock.now + 9.0)
        admission.begin_final(ticket, Work(0.1))
        clock.now += 0.3
        admission.learn(ticket)
        admission.leave(ticket)
    with pytest.raises(Overloaded):
        admission.admit(Demand("a", Work(0.1), Work(0.1)), clock.now + 0.25)
    admission.admit(Demand("a", Work(0.1), Work(0.1)), clock.now + 0.35)


def test_the_margin_fades_after_a_slow_moment(admission: Admission, clock: ManualClock) -> None:
    for _ in range(60):
        ticket = admission.admit(Demand("a", Work(0.1), Work(0.1)), clock.now + 999.0)
        admission.begin_final(ticket, Work(0.1))
        clock.now += 9.0
        admission.learn(ticket)
        admission.leave(ticket)
    with pytest.raises(Overloaded) as refused:
        admission.admit(Demand("a", Work(0.1), Work(0.1)), clock.now + 0.3)
    assert refused.value.retry_after_s == MAX_RETRY_S
    clock.now += 12.0
    admission.admit(Demand("a", Work(0.1), Work(0.1)), clock.now + 0.3)


FLOOR, ITERATION = Work(0.2), Work(0.5)
"""of the plan in the docstring's example"""


def run(plan: Ticket, clock: ManualClock, seconds: float) -> None:
    """The device does so much of a plan's remaining work."""
    clock.now += seconds
    plan.charge(seconds, seconds)


def test_the_example_of_the_docstring_on_an_idle_device(admission: Admission, clock: ManualClock) -> None:
    zero = clock.now
    plan = admission.admit(Demand("plan", FLOOR, FLOOR + ITERATION * 9), zero + 1.5)
    for _ in range(2):
        assert admission.grant(plan, ITERATION, FLOOR)
        run(plan, clock, 0.5)
    assert not admission.grant(plan, ITERATION, FLOOR)
    admission.begin_final(plan, FLOOR)
    assert plan.predicted_end == pytest.approx(zero + 1.2)


@pytest.mark.parametrize(("deadline_s", "granted", "end_s"), [(1.5, False, 1.3), (1.8 + 2 * MIN_MARGIN_S, True, 1.8)])
def test_the_example_of_the_docstring_with_another_plan(
    admission: Admission, clock: ManualClock, deadline_s: float, granted: bool, end_s: float
) -> None:
    """Also with a deadline that allows the second iteration, to see that the plan would end at 1.8 s."""
    zero = clock.now
    plan = admission.admit(Demand("plan", FLOOR, FLOOR + ITERATION * 9), zero + deadline_s)
    assert admission.grant(plan, ITERATION, FLOOR)
    other = admission.admit(Demand("other", Work(0.6), Work(0.6)), zero + 1.0)
    assert order(plan, other) == ["other", "plan"]
    run(other, clock, 0.6)
    admission.leave(other)
    run(plan, clock, 0.5)

    assert admission.grant(plan, ITERATION, FLOOR) == granted
    admission.begin_final(plan, plan.remaining)
    assert plan.predicted_end == pytest.approx(zero + end_s)
    with pytest.raises(Overloaded) as refused:
        admission.admit(Demand("third", Work(0.9), Work(0.9)), clock.now + 1.0)
    assert refused.value.retry_after_s > 0


def test_onlookers_see_who_has_plans_who_is_beyond_its_share_and_who_was_refused(
    admission: Admission, clock: ManualClock
) -> None:
    ended = admission.admit(Demand("greedy", Work(1.0), Work(1.0)), clock.now + 9.0)
    waiting = admission.admit(Demand("patient", Work(2.0), Work(2.0)), clock.now + 2.5)
    ended.charge(predicted_s=1.0, used_s=1.0)
    admission.leave(ended)
    with pytest.raises(Overloaded):
        admission.admit(Demand("late", Work(1.0), Work(1.0)), clock.now + 1.5)
    told = {each.robot: each for each in admission.standings()}
    assert list(told) == ["greedy", "late", "patient"]
    assert (told["patient"].num_plans, told["patient"].remaining_s, told["patient"].is_refused) == (1, 2.0, False)
    assert (told["greedy"].num_plans, told["greedy"].beyond_s) == (0, 2.0)  # two robots shared the device
    assert (told["late"].num_plans, told["late"].is_refused) == (0, True)
    admission.leave(waiting)
    clock.now += 60.0
    assert admission.standings() == []
