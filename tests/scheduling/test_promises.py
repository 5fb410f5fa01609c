"""Admitted plans end in time on a device that is as fast as predicted, whatever comes after them."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.clock import ManualClock
from tests.scheduling.simulated import Arrival, SimulatedDevice, arrivals
from wavserve.core.errors import DeadlineExceeded, Overloaded
from wavserve.scheduling.admission import Admission, Demand
from wavserve.scheduling.ledger import Ticket, Work


def predicted_end(admission: Admission, ticket: Ticket) -> float:
    """The predicted end of a plan; its remaining work stays as it is."""
    admission.begin_final(ticket, ticket.remaining)
    assert ticket.predicted_end is not None
    return ticket.predicted_end


@settings(deadline=None, max_examples=300)
@given(arrivals)
def test_every_admitted_plan_ends_once_and_in_time(script: list[Arrival]) -> None:
    """A robot whose plan is running does not ask. At the end nothing is left."""
    device = SimulatedDevice()
    for robot, calls, wanted, within_s, run in script:
        if f"r{robot}" not in device.busy:
            device.ask_if_admitted(f"r{robot}", calls, wanted, within_s)
        for _ in range(run):
            device.run_one()
    for _ in range(20 * len(script)):
        device.run_one()
    for plan in device.plans:
        assert plan.ended is not None
        assert plan.ended <= plan.ticket.deadline
    assert device.admission.remaining_s == 0.0


@settings(deadline=None, max_examples=100)
@given(arrivals)
def test_every_call_is_of_the_plan_with_the_earliest_deadline(script: list[Arrival]) -> None:
    """Among the plans with a deadline. Of equal deadlines the first to ask goes first."""
    device = SimulatedDevice()
    for number, (_, calls, wanted, within_s, run) in enumerate(script):
        device.ask_if_admitted(f"r{number}", calls, wanted, within_s)
        for _ in range(run):
            bounded = [plan for plan in device.running if plan.ticket.bounded]
            device.run_one()
            if device.served and device.served[-1].ticket.bounded and bounded:
                first = min(bounded, key=lambda plan: (plan.ticket.deadline, plan.ticket.number))
                assert device.served[-1] is first


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 6), st.floats(0.01, 2.0), st.floats(0.0, 6.0)), max_size=20))
def test_whenever_a_plan_is_admitted_all_are_predicted_in_time(script: list[tuple[int, float, float]]) -> None:
    """The new plan and every one before it."""
    clock = ManualClock()
    admission = Admission(lambda: 0.1, clock)
    tickets: list[Ticket] = []
    for robot, floor_s, within_s in script:
        demand = Demand(f"r{robot}", Work(floor_s), Work(floor_s))
        try:
            tickets.append(admission.admit(demand, clock.now + within_s))
        except (Overloaded, DeadlineExceeded):
            continue
        assert all(predicted_end(admission, ticket) <= ticket.deadline for ticket in tickets)


def test_under_overload_plans_are_in_time_and_the_device_is_never_idle() -> None:
    """Eight robots ask for far more than the device can do. A refused robot asks again after `retry_after_s`."""
    device = SimulatedDevice(call_s=0.05)
    asks_at = dict.fromkeys((f"r{n}" for n in range(8)), 0.0)
    refused = 0
    for _ in range(2000):
        for robot in asks_at.keys() - device.busy:
            if asks_at[robot] <= device.clock.now:
                try:
                    device.ask(robot, calls=2, wanted=3, within_s=0.6)
                except Overloaded as error:
                    asks_at[robot] = device.clock.now + error.retry_after_s
                    refused += 1
        before = device.clock.now
        device.run_one()
        assert device.clock.now > before
    ended = [plan for plan in device.plans if plan.ended is not None]
    assert all(plan.ended <= plan.ticket.deadline for plan in ended)
    assert len(device.served) > 0.95 * 2000
    per_robot = [sum(plan.ticket.robot == robot for plan in ended) for robot in asks_at]
    assert min(per_robot) > 0.7 * max(per_robot), per_robot
    assert refused
