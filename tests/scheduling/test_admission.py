"""The admission on a clock that only the test moves: who goes first, what is promised, and that promises are kept."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.planning.rig import ManualClock
from wavserve.core.errors import DeadlineExceeded, Overloaded
from wavserve.scheduling.admission import Admission, Demand
from wavserve.scheduling.lateness import MIN_MARGIN_S
from wavserve.scheduling.ledger import Ticket, Work
from wavserve.scheduling.shares import MAX_RETRY_S

INF = math.inf


def made(slice_s: float = 0.0) -> tuple[Admission, ManualClock]:
    clock = ManualClock()
    return Admission(lambda: slice_s, clock), clock


def order(*tickets: Ticket) -> list[str]:
    return [ticket.robot for ticket in sorted(tickets, key=lambda ticket: ticket.rank)]


def test_earliest_deadline_first_then_first_come() -> None:
    admission, clock = made()
    late, soon, later, soon_too = (
        admission.admit(Demand(name, Work(0.01), Work(0.1)), clock.now + within)
        for name, within in (("late", 5.0), ("soon", 2.0), ("later", 9.0), ("soon too", 2.0))
    )
    assert order(late, soon, later, soon_too) == ["soon", "soon too", "late", "later"]


def test_what_would_be_late_is_refused_with_what_was_foretold() -> None:
    admission, clock = made()
    for robot in "abc":
        admission.admit(Demand(robot, Work(1.0), Work(9.0)), clock.now + 3.5)
    with pytest.raises(Overloaded) as refused:
        admission.admit(Demand("d", Work(1.0), Work(9.0)), clock.now + 3.6)
    assert refused.value.predicted_s == pytest.approx(4.0)
    assert refused.value.retry_after_s == pytest.approx(0.4 + MIN_MARGIN_S)
    clock.now += 0.1
    assert admission.remaining_s == 3.0  # nothing of it was entered
    admission.admit(Demand("e", Work(1.0), Work(9.0)), clock.now + 9.0)


def test_what_would_make_another_late_is_refused() -> None:
    admission, clock = made()
    admission.admit(Demand("a", Work(2.0), Work(2.0)), clock.now + 4.5)
    admission.admit(Demand("b", Work(2.0), Work(2.0)), clock.now + 4.0)
    with pytest.raises(Overloaded):
        admission.admit(Demand("c", Work(1.0), Work(1.0)), clock.now + 3.0)


def test_what_no_plan_ever_did_is_no_overload() -> None:
    admission, clock = made()
    with pytest.raises(DeadlineExceeded, match=r"0\.900 s are left, and a plan takes 1\.000 s at the least"):
        admission.admit(Demand("a", Work(1.5), Work(9.0), least_s=1.0), clock.now + 0.9)


def test_a_slow_moment_of_an_idle_device_is_one_to_come_again_after() -> None:
    admission, clock = made()
    with pytest.raises(Overloaded) as refused:
        admission.admit(Demand("a", Work(1.5), Work(9.0), least_s=1.0), clock.now + 1.2)
    assert refused.value.predicted_s == pytest.approx(1.5 + MIN_MARGIN_S)
    assert refused.value.retry_after_s == MAX_RETRY_S
    patient = admission.admit(Demand("b", Work(1.5), Work(9.0)), clock.now + 90.0)
    assert admission.grant(patient, Work(1.5), Work(1.5)), "its giving way would help nobody"


def test_a_call_that_runs_already_is_waited_for() -> None:
    admission, clock = made(slice_s=0.5)
    admission.admit(Demand("a", Work(1.0), Work(1.0)), clock.now + 9.0)
    with pytest.raises(Overloaded):
        admission.admit(Demand("b", Work(1.0), Work(1.0)), clock.now + 1.4)


def test_a_plan_ends_when_its_own_calls_do_however_little_of_the_device_they_take() -> None:
    """They follow each other, and beside and in them run those of others."""
    admission, clock = made()
    with pytest.raises(Overloaded) as refused:
        admission.admit(Demand("a", Work(1.0, 3.0), Work(9.0, 27.0)), clock.now + 2.0)
    assert refused.value.predicted_s == pytest.approx(3.0 + MIN_MARGIN_S)
    first = admission.admit(Demand("a", Work(1.0, 3.0), Work(9.0, 27.0)), clock.now + 3.1)
    second = admission.admit(Demand("b", Work(1.0, 3.0), Work(9.0, 27.0)), clock.now + 4.5)  # behind a second of work
    assert not admission.grant(second, Work(0.5, 2.1), Work(0.5, 1.5))
    assert second.remaining == Work(0.5, 1.5)
    first.charge(0.5, 0.5)
    assert first.remaining == Work(0.5, 1.5), "half of it is done"
    assert admission.grant(second, Work(0.5, 2.1), Work(0.5, 1.5))


def test_who_leaves_without_having_used_anything_owes_and_has_used_nothing() -> None:
    admission, clock = made()
    admission.leave(admission.admit(Demand("a", Work(1.0), Work(1.0)), clock.now + 2.0))
    assert admission.remaining_s == 0.0
    admission.admit(Demand("a", Work(1.0), Work(1.0)), clock.now + 2.0)
    with pytest.raises(Overloaded):
        admission.admit(Demand("b", Work(1.0), Work(1.0)), clock.now + 1.5)


def test_iterations_are_granted_while_nobody_comes_late_for_them() -> None:
    admission, clock = made()
    lone = admission.admit(Demand("lone", Work(1.0), Work(9.0)), clock.now + 4.5)
    assert admission.grant(lone, Work(1.0), Work(1.0))
    clock.now += 1.0
    lone.charge(1.0, 1.0)
    assert admission.grant(lone, Work(1.0), Work(1.0))
    other = admission.admit(Demand("other", Work(1.5), Work(1.5)), clock.now + 3.6)  # behind what was granted
    clock.now += 1.0
    lone.charge(1.0, 1.0)
    assert not admission.grant(lone, Work(1.0), Work(1.0))
    assert lone.remaining == Work(1.0)
    assert admission.remaining_s == 2.5
    assert not admission.grant(other, Work(0.5), Work(1.5))


def test_a_plan_without_a_deadline_may_always_go_on() -> None:
    admission, clock = made()
    endless = admission.admit(Demand("endless", Work(1.0), Work(5.0)), INF)
    admission.admit(Demand("other", Work(1.0), Work(1.0)), clock.now + 1.5)
    assert endless.remaining == Work(5.0)
    assert admission.grant(endless, Work(1.0), Work(4.0))


def test_a_plan_without_a_deadline_gives_way_to_those_it_would_make_late_and_no_further() -> None:
    admission, clock = made()
    tight = admission.admit(Demand("tight", Work(1.0), Work(1.0)), clock.now + 3.0)
    loose = admission.admit(Demand("loose", Work(1.0), Work(20.0)), clock.now + 60.0)
    endless = admission.admit(Demand("endless", Work(5.0), Work(5.0)), INF)
    assert order(tight, loose, endless) == ["tight", "endless", "loose"]
    assert admission.grant(endless, Work(1.0), Work(3.0))
    assert order(tight, loose, endless) == ["tight", "endless", "loose"]


def test_a_far_deadline_is_no_worse_than_none_and_those_before_it_go_first() -> None:
    admission, clock = made()
    endless = admission.admit(Demand("endless", Work(1.0), Work(20.0)), INF)
    far = admission.admit(Demand("far", Work(1.0), Work(8.0)), clock.now + 90.0)
    assert order(endless, far) == ["far", "endless"]  # its share pays for it sooner
    farther = admission.admit(Demand("farther", Work(1.0), Work(2.0)), clock.now + 99.0)
    assert order(endless, far, farther) == ["far", "farther", "endless"]  # it would be first by its share
    before = admission.admit(Demand("before", Work(1.0), Work(70.0)), clock.now + 80.0)
    assert order(endless, far, farther, before) == ["before", "far", "farther", "endless"]


def test_a_short_plan_goes_before_a_long_one_when_neither_has_a_deadline() -> None:
    admission, clock = made()
    long = admission.admit(Demand("long", Work(9.0), Work(9.0)), INF)
    clock.now += 1.0
    short = admission.admit(Demand("short", Work(0.1), Work(0.1)), INF)
    assert order(long, short) == ["short", "long"]


def test_without_deadlines_a_robot_that_used_more_than_its_share_goes_behind_one_that_did_not() -> None:
    admission, clock = made()
    admission.admit(Demand("modest", Work(0.5), Work(0.5)), INF)
    greedy = admission.admit(Demand("greedy", Work(2.0), Work(2.0)), INF)
    greedy.charge(2.0, 2.0)
    clock.now += 2.0
    admission.leave(greedy)
    again = admission.admit(Demand("greedy", Work(0.1), Work(0.1)), INF)
    other = admission.admit(Demand("other", Work(0.5), Work(0.5)), INF)
    assert order(again, other) == ["other", "greedy"]


def test_while_somebody_is_refused_the_share_counts() -> None:
    """A robot that used more than its share waits for the refused one, and nobody is granted an iteration."""
    admission, clock = made()
    greedy = admission.admit(Demand("greedy", Work(2.0), Work(2.0)), clock.now + 2.5)
    busy = admission.admit(Demand("busy", Work(0.2), Work(2.0)), clock.now + 9.0)
    clock.now += 1.9
    greedy.charge(1.9, 1.9)
    with pytest.raises(Overloaded, match="would be ready"):
        admission.admit(Demand("refused", Work(0.55), Work(0.55)), clock.now + 0.6)
    assert not admission.grant(busy, Work(0.1), Work(0.2))
    admission.leave(greedy)
    with pytest.raises(Overloaded, match="has used its share"):
        admission.admit(Demand("greedy", Work(0.1), Work(0.1)), clock.now + 9.0)
    admission.admit(Demand("refused", Work(0.55), Work(0.55)), clock.now + 0.6)
    assert not admission.grant(busy, Work(0.1), Work(0.2)), "greedy was refused meanwhile"
    clock.now += 6.0
    assert admission.grant(busy, Work(0.1), Work(0.2)), "who does not come back is not waited for"


def test_plans_that_end_late_make_promises_careful() -> None:
    admission, clock = made()
    for _ in range(60):
        ticket = admission.admit(Demand("a", Work(0.1), Work(0.1)), clock.now + 9.0)
        admission.finish(ticket, Work(0.1))
        clock.now += 0.3
        admission.learn(ticket)
        admission.leave(ticket)
    with pytest.raises(Overloaded):
        admission.admit(Demand("a", Work(0.1), Work(0.1)), clock.now + 0.25)
    admission.admit(Demand("a", Work(0.1), Work(0.1)), clock.now + 0.35)


def test_a_bad_moment_does_not_have_everybody_refused_for_good() -> None:
    admission, clock = made()
    for _ in range(60):
        ticket = admission.admit(Demand("a", Work(0.1), Work(0.1)), clock.now + 999.0)
        admission.finish(ticket, Work(0.1))
        clock.now += 9.0
        admission.learn(ticket)
        admission.leave(ticket)
    with pytest.raises(Overloaded) as refused:
        admission.admit(Demand("a", Work(0.1), Work(0.1)), clock.now + 0.3)
    assert refused.value.retry_after_s == MAX_RETRY_S
    clock.now += 12.0
    admission.admit(Demand("a", Work(0.1), Work(0.1)), clock.now + 0.3)


@dataclass
class Plan:
    """A plan on the simulated device: `calls` calls an iteration and as many for its last part."""

    ticket: Ticket
    calls: int
    wanted: int
    """iterations not begun yet"""
    left: int = 0
    """calls granted and not run yet"""
    final: bool = False
    begun: float | None = None
    ended: float | None = None


class Device:
    """Runs calls of admitted plans one after the other, never interrupted, the lowest rank first, as predicted."""

    def __init__(self, call_s: float = 0.25) -> None:
        self.clock = ManualClock()
        self.admission = Admission(lambda: call_s, self.clock)
        self.call_s = call_s
        self.plans: list[Plan] = []
        self.order: list[Plan] = []

    def ask(self, robot: str, calls: int, wanted: int, within_s: float) -> Plan:
        """Raises as `admit` does."""
        part_s = calls * self.call_s
        demand = Demand(robot, Work(part_s), Work(part_s * (1 + wanted)))
        ticket = self.admission.admit(demand, self.clock.now + within_s)
        plan = Plan(ticket, calls, wanted)
        self.plans.append(plan)
        return plan

    def run_one(self) -> None:
        """One call, or a moment of rest when nobody wants one."""
        waiting = [plan for plan in self.plans if plan.ended is None]
        if not waiting:
            self.clock.now += self.call_s
            return
        plan = min(waiting, key=lambda plan: plan.ticket.rank)
        if plan.begun is None:
            plan.begun = self.clock.now
            self._go_on(plan)
        self.order.append(plan)
        self.clock.now += self.call_s
        plan.ticket.charge(self.call_s, self.call_s)
        plan.left -= 1
        if plan.left == 0:
            self._end(plan) if plan.final else self._go_on(plan)

    def _go_on(self, plan: Plan) -> None:
        part_s = plan.calls * self.call_s
        later_s = part_s if plan.ticket.bounded else part_s * plan.wanted
        if plan.wanted and self.admission.grant(plan.ticket, Work(part_s), Work(later_s)):
            plan.wanted -= 1
        else:
            assert plan.ticket.bounded or not plan.wanted, "without a deadline every iteration is granted"
            plan.final = True
            self.admission.finish(plan.ticket, Work(part_s))
        plan.left = plan.calls

    def _end(self, plan: Plan) -> None:
        assert plan.ended is None
        plan.ended = self.clock.now
        self.admission.learn(plan.ticket)
        self.admission.leave(plan.ticket)


asked = st.tuples(
    st.integers(0, 4),  # robot
    st.integers(1, 3),  # calls
    st.integers(0, 4),  # iterations
    st.sampled_from([0.3, 0.6, 1.0, 2.0, 4.0, 8.0, INF]),
    st.integers(0, 3),  # calls run before the next one asks
)


def played(script: list[tuple[int, int, int, float, int]]) -> tuple[Device, list[Plan]]:
    """All of it, and then until nothing is left; a robot whose plan is under way does not ask."""
    device, admitted = Device(), []
    for robot, calls, wanted, within_s, run in script:
        busy = {plan.ticket.robot for plan in device.plans if plan.ended is None}
        if f"r{robot}" not in busy:
            with contextlib.suppress(Overloaded, DeadlineExceeded):
                admitted.append(device.ask(f"r{robot}", calls, wanted, within_s))
        for _ in range(run):
            device.run_one()
    for _ in range(20 * len(script)):
        device.run_one()
    return device, admitted


@settings(deadline=None, max_examples=300)
@given(st.lists(asked, max_size=25))
def test_whatever_was_admitted_ends_once_and_in_time(script: list[tuple[int, int, int, float, int]]) -> None:
    """On a device that is as fast as predicted, no admitted plan is late, whatever comes after it, and none is lost."""
    device, admitted = played(script)
    assert len(admitted) == len(device.plans)
    for plan in admitted:
        assert plan.ended is not None
        assert plan.ended <= plan.ticket.deadline
    assert device.admission.remaining_s == 0.0


@settings(deadline=None, max_examples=100)
@given(st.lists(asked, max_size=25))
def test_every_call_is_of_the_plan_with_the_earliest_deadline(script: list[tuple[int, int, int, float, int]]) -> None:
    """Among the plans that have one; equal deadlines go first come, first served."""
    device = Device()
    for number, (_, calls, wanted, within_s, run) in enumerate(script):
        with contextlib.suppress(Overloaded, DeadlineExceeded):
            device.ask(f"r{number}", calls, wanted, within_s)
        for _ in range(run):
            waiting = [plan for plan in device.plans if plan.ended is None and plan.ticket.bounded]
            device.run_one()
            if device.order and device.order[-1].ticket.bounded and waiting:
                first = min(waiting, key=lambda plan: (plan.ticket.deadline, plan.ticket.number))
                assert device.order[-1] is first


def test_admission_never_admits_what_the_cost_model_says_is_late() -> None:
    """Every admitted plan is, at that moment, predicted to end before its deadline, and so is every one before it."""

    @settings(deadline=None, max_examples=200)
    @given(st.lists(st.tuples(st.integers(0, 6), st.floats(0.01, 2.0), st.floats(0.0, 6.0)), max_size=20))
    def check(script: list[tuple[int, float, float]]) -> None:
        admission, clock = made(slice_s=0.1)
        deadlines: dict[int, float] = {}
        for robot, floor_s, within_s in script:
            deadline = clock.now + within_s
            try:
                ticket = admission.admit(Demand(f"r{robot}", Work(floor_s), Work(floor_s)), deadline)
            except (Overloaded, DeadlineExceeded):
                continue
            deadlines[ticket.number] = deadline
            assert all(end <= deadlines[number] for number, end in admission._ledger.ends().items())

    check()


@pytest.mark.parametrize("within_s", [INF, 0.6])
def test_nobody_starves(within_s: float) -> None:
    """A huge plan without a deadline, and three robots that ask for small ones as fast as they can: it ends when a
    quarter of the device would have made it."""
    device = Device()
    huge = device.ask("huge", calls=3, wanted=40, within_s=INF)
    while huge.ended is None:
        busy = {plan.ticket.robot for plan in device.plans if plan.ended is None}
        for robot in {"a", "b", "c"} - busy:
            with contextlib.suppress(Overloaded, DeadlineExceeded):
                device.ask(robot, calls=1, wanted=0, within_s=within_s)
        device.run_one()
    needs_s = 3 * 41 * device.call_s
    assert huge.ended - huge.ticket.starts <= 4 * needs_s + 4 * device.call_s


def shares(sizes: dict[str, tuple[int, int]], patient: set[str]) -> dict[str, float]:
    """What each robot has of the device when all ask as fast as they can, plans of so many calls and iterations; the
    patient ones with a deadline that is far away."""
    device = Device()
    for _ in range(2000):
        busy = {plan.ticket.robot for plan in device.plans if plan.ended is None}
        for robot, (calls, wanted) in sizes.items():
            if robot not in busy:
                device.ask(robot, calls, wanted, 1e4 if robot in patient else INF)
        device.run_one()
    return {robot: sum(plan.ticket.robot == robot for plan in device.order) / len(device.order) for robot in sizes}


SIZES = {"one": (1, 0), "three": (3, 0), "many": (2, 4), "most": (3, 4)}


def test_everybody_gets_a_share_whatever_they_send() -> None:
    """Plans of one call and plans of many: device time is what is shared equally."""
    assert all(0.2 < share < 0.3 for share in shares(SIZES, set()).values())


@pytest.mark.parametrize("patient", [{"a"}, {"a", "b"}, {"a", "b", "c"}, {"a", "b", "c", "d"}])
def test_who_has_much_time_gets_no_less_than_who_has_no_deadline(patient: set[str]) -> None:
    assert all(0.2 < share < 0.3 for share in shares(dict.fromkeys("abcd", (2, 3)), patient).values())


@pytest.mark.parametrize("patient", [{"one", "many"}, {"three", "most"}, {"many", "most"}])
def test_who_has_much_time_takes_nothing_from_who_has_no_deadline(patient: set[str]) -> None:
    """Among themselves they go by their deadlines, plan by plan."""
    found = shares(SIZES, patient)
    assert all(found[robot] > 0.2 for robot in SIZES.keys() - patient), found
    assert sum(found[robot] for robot in patient) > 0.3, found


def test_under_overload_admitted_plans_are_in_time_and_the_device_is_never_idle() -> None:
    """Eight robots ask for far more than there is; whoever is refused asks again when it was told to."""
    device = Device(call_s=0.05)
    retry = dict.fromkeys((f"r{n}" for n in range(8)), 0.0)
    refused = 0
    for _ in range(2000):
        busy = {plan.ticket.robot for plan in device.plans if plan.ended is None}
        for robot in retry.keys() - busy:
            if retry[robot] <= device.clock.now:
                try:
                    device.ask(robot, calls=2, wanted=3, within_s=0.6)
                except Overloaded as error:
                    retry[robot] = device.clock.now + error.retry_after_s
                    refused += 1
        before = device.clock.now
        device.run_one()
        assert device.clock.now > before
    ended = [plan for plan in device.plans if plan.ended is not None]
    assert all(plan.ended <= plan.ticket.deadline for plan in ended)
    assert len(device.order) > 0.95 * 2000
    per_robot = [sum(plan.ticket.robot == robot for plan in ended) for robot in retry]
    assert min(per_robot) > 0.7 * max(per_robot), per_robot
    assert refused


def test_iterations_are_shared_as_well() -> None:
    """Three robots in a row that could use more than there is: none gets all that is left over."""
    device = Device(call_s=0.05)
    robots = ["a", "b", "c"]
    for _ in range(3000):
        busy = {plan.ticket.robot for plan in device.plans if plan.ended is None}
        for robot in robots:
            if robot not in busy:
                device.ask(robot, calls=2, wanted=9 if robot == "a" else 3, within_s=0.6)
        device.run_one()
    used = [sum(plan.ticket.robot == robot for plan in device.order) for robot in robots]
    assert max(used) < 1.4 * min(used), used
