"""A simulated device that takes exactly as long as predicted, under a real admission."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass

from hypothesis import strategies as st

from tests.clock import ManualClock
from wavserve.core.errors import DeadlineExceeded, Overloaded
from wavserve.scheduling.admission import Admission, Demand
from wavserve.scheduling.ledger import Ticket, Work

INF = math.inf


@dataclass
class SimulatedPlan:
    """A plan of `calls` calls for each iteration and as many for the final decode."""

    ticket: Ticket
    calls: int
    wanted: int
    """iterations not begun yet"""
    granted_calls: int = 0
    """calls granted and not run yet"""
    final: bool = False
    begun: bool = False
    ended: float | None = None


class SimulatedDevice:
    """Runs calls of admitted plans one after the other, each to its end, the lowest rank first."""

    def __init__(self, call_s: float = 0.25) -> None:
        self.clock = ManualClock()
        self.admission = Admission(lambda: call_s, self.clock)
        self.call_s = call_s
        self.plans: list[SimulatedPlan] = []
        self.served: list[SimulatedPlan] = []
        """the plan of every call, in order"""

    @property
    def running(self) -> list[SimulatedPlan]:
        return [plan for plan in self.plans if plan.ended is None]

    @property
    def busy(self) -> set[str]:
        """Robots with a running plan."""
        return {plan.ticket.robot for plan in self.running}

    def ask(self, robot: str, calls: int, wanted: int, within_s: float) -> SimulatedPlan:
        """Starts a plan with `wanted` iterations and a deadline in `within_s`. Raises as `admit` does."""
        part_s = calls * self.call_s
        demand = Demand(robot, Work(part_s), Work(part_s * (1 + wanted)))
        ticket = self.admission.admit(demand, self.clock.now + within_s)
        plan = SimulatedPlan(ticket, calls, wanted)
        self.plans.append(plan)
        return plan

    def ask_if_admitted(self, robot: str, calls: int, wanted: int, within_s: float) -> None:
        with contextlib.suppress(Overloaded, DeadlineExceeded):
            self.ask(robot, calls, wanted, within_s)

    def run_one(self) -> None:
        """One call, or a pause of the same length when no plan is running."""
        if not self.running:
            self.clock.now += self.call_s
            return
        plan = min(self.running, key=lambda plan: plan.ticket.rank)
        if not plan.begun:
            plan.begun = True
            self._begin_part(plan)
        self.served.append(plan)
        self.clock.now += self.call_s
        plan.ticket.charge(self.call_s, self.call_s)
        plan.granted_calls -= 1
        if plan.granted_calls == 0:
            self._end(plan) if plan.final else self._begin_part(plan)

    def calls_of(self, robot: str) -> int:
        """Calls of a robot's plans so far."""
        return sum(plan.ticket.robot == robot for plan in self.served)

    def _begin_part(self, plan: SimulatedPlan) -> None:
        """Begins the next iteration when it is granted, and else the final decode."""
        part_s = plan.calls * self.call_s
        later_s = part_s if plan.ticket.bounded else part_s * plan.wanted
        if plan.wanted and self.admission.grant(plan.ticket, Work(part_s), Work(later_s)):
            plan.wanted -= 1
        else:
            assert plan.ticket.bounded or not plan.wanted, "without a deadline every iteration is granted"
            plan.final = True
            self.admission.begin_final(plan.ticket, Work(part_s))
        plan.granted_calls = plan.calls

    def _end(self, plan: SimulatedPlan) -> None:
        assert plan.ended is None
        plan.ended = self.clock.now
        self.admission.learn(plan.ticket)
        self.admission.leave(plan.ticket)


Arrival = tuple[int, int, int, float, int]
arrivals = st.lists(
    st.tuples(
        st.integers(0, 4),  # robot
        st.integers(1, 3),  # calls
        st.integers(0, 4),  # iterations
        st.sampled_from([0.3, 0.6, 1.0, 2.0, 4.0, 8.0, INF]),  # seconds until the deadline
        st.integers(0, 3),  # calls run before the next arrival
    ),
    max_size=25,
)
