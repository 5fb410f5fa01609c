"""What is promised on one device: which plans are admitted, and how many planning iterations each gets.

A promise once made is kept. A plan with a deadline needs at least its final decode; planning iterations are optional
(the mandatory and optional parts of imprecise computation, Liu et al., 1991). A plan is admitted, and an iteration
granted, only when the ledger predicts that no plan becomes late by it.

**Example.** A plan needs 0.2 s without iterations and 0.5 s more for each; its deadline is in 1.5 s. On an idle device
it is admitted and gets two iterations (1.2 s). When a plan of 0.6 s with a deadline in 1 s is admitted right after it,
two iterations would end at 1.8 s: the second is not granted, and the first plan decodes after one. A plan that needs
0.9 s by a deadline in 1 s is now refused with `retry_after_s`.

The planner asks here before it spends; the batcher orders groups by `Ticket.rank`. Nothing waits or queues in here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from wavserve.core.errors import DeadlineExceeded, Overloaded
from wavserve.core.types import Clock
from wavserve.scheduling.ledger import Ledger, Ticket, Work
from wavserve.scheduling.shares import MAX_RETRY_S, Shares


@dataclass(frozen=True, slots=True)
class Demand:
    """What a plan will take."""

    robot: str
    """the robot whose share pays"""
    floor: Work
    """without any planning iteration"""
    whole: Work
    """with every iteration that was asked for"""
    least_s: float = 0.0
    """device seconds of `floor` at the lowest cost ever measured"""
    alone: bool = False
    """whether it shares no call with other plans"""


@dataclass(frozen=True, slots=True)
class Standing:
    """One robot on a device, for onlookers."""

    robot: str
    num_plans: int
    remaining_s: float
    """device seconds that its plans still need"""
    beyond_s: float
    """for how long it is beyond its share; 0: it is not"""
    is_refused: bool
    """whether it was refused and is expected to ask again"""


class Admission:
    """Admits plans to one device and grants them iterations."""

    def __init__(self, longest_s: Callable[[], float] = lambda: 0.0, clock: Clock = time.monotonic) -> None:
        """`longest_s`: the longest call that a more urgent plan may have to wait for."""
        self._clock = clock
        self._ledger = Ledger(longest_s, clock)
        self._shares = Shares(clock)

    @property
    def remaining_s(self) -> float:
        """Device seconds that all admitted plans still need."""
        return self._ledger.remaining_s

    def standings(self) -> list[Standing]:
        """Every robot that has a plan here, is beyond its share or was refused, by name."""
        beyond_s, refused, tickets = self._shares.beyond_s(), self._shares.refused(), self._ledger.tickets
        return [
            Standing(
                robot,
                sum(ticket.robot == robot for ticket in tickets),
                sum(ticket.remaining.device_s for ticket in tickets if ticket.robot == robot),
                beyond_s.get(robot, 0.0),
                robot in refused,
            )
            for robot in sorted(beyond_s.keys() | refused | self._ledger.robots)
        ]

    def soonest_s(self) -> float:
        """Seconds until the first plan is predicted to end; 0 when there is none."""
        return min(self._ledger.ends().values(), default=self._clock()) - self._clock()

    def admit(self, demand: Demand, deadline: float) -> Ticket:
        """Registers a plan if its deadline can be kept.

        Raises DeadlineExceeded when no plan was ever fast enough, so a retry is of no use. Raises Overloaded when this
        plan, or another one through it, is predicted to miss its deadline as things are.
        """
        left_s = deadline - self._clock()
        if demand.least_s > left_s:
            raise DeadlineExceeded(
                f"{max(left_s, 0.0):.3f} s are left, and a plan takes {demand.least_s:.3f} s at the least"
            )
        self._shares.check(demand.robot, deadline)
        idle_s = max(demand.floor.device_s, demand.floor.wall_s) + self._ledger.lateness.margin_s
        if idle_s > left_s:  # other plans are not the cause: the device itself is slow now
            message = f"a plan would take {idle_s:.3f} s on an idle device as it is now, and {left_s:.3f} s are left"
            raise Overloaded(message, MAX_RETRY_S, idle_s, "device_time")
        before = self._ledger.late()
        ticket = self.register(demand, deadline)
        late = self._ledger.late()
        newly_late = late.keys() - before.keys()
        if ticket.bounded and newly_late:  # the new plan may be among them
            ready_s = self._ledger.ends()[ticket.number] - self._clock()
            self._ledger.remove(ticket)
            message = f"a plan would be ready in {ready_s:.3f} s: it, or an admitted plan, would miss its deadline"
            raise self._shares.refusal(demand.robot, message, max(late[number] for number in newly_late), ready_s)
        return ticket

    def register(self, demand: Demand, deadline: float) -> Ticket:
        """Registers a plan without asking: it was admitted before, here or on another device."""
        ticket = self._ledger.add(deadline, demand.robot, self._shares.start(demand.robot), demand.alone)
        if ticket.bounded:
            self._ledger.schedule(ticket, self._fair(ticket, demand.whole))
        self._set_remaining(ticket, demand.floor if ticket.bounded else demand.whole)
        return ticket

    def grant(self, ticket: Ticket, iteration: Work, rest: Work) -> bool:
        """Whether a plan may do one more iteration, with the `rest` of its work to follow.

        A plan without a deadline always may. A plan with one may not while a robot is refused (nobody is refused for
        another's better plan), nor beyond its share while others are short of iterations, nor when a plan would be
        late. Granted work becomes remaining work.
        """
        if not ticket.bounded:
            self._set_remaining(ticket, iteration + rest)
            self._shares.note_iteration(ticket.robot, granted=True)
            return True
        if self._shares.others_first(ticket):
            ticket.remaining = rest
            return False
        before = self._ledger.late().keys()
        ticket.remaining = iteration + rest
        late = self._ledger.late().keys()
        granted = not (ticket.number in late or late - before)
        if not granted:
            ticket.remaining = rest
        self._shares.note_iteration(ticket.robot, granted)
        return granted

    def begin_final(self, ticket: Ticket, work: Work) -> None:
        """A plan's last calls begin. `learn` will compare the end that is predicted now with the clock."""
        ticket.remaining = work
        ticket.predicted_end = self._ledger.ends().get(ticket.number)

    def learn(self, ticket: Ticket) -> None:
        """A plan is ready: its predicted end is compared with the clock."""
        if ticket.predicted_end is not None:
            self._ledger.lateness.learn(self._clock() - ticket.predicted_end)

    def leave(self, ticket: Ticket) -> None:
        """A plan ended, whichever way. Its robot's share is charged, and once more for a call that still runs."""
        self._shares.settle(ticket, ticket.used_s, self._ledger.robots)
        self._ledger.remove(ticket)
        ticket.after_end = lambda used_s: self._shares.settle(ticket, used_s, {*self._ledger.robots, ticket.robot})

    def _set_remaining(self, ticket: Ticket, work: Work) -> None:
        """Sets a plan's remaining work; a plan without a deadline is scheduled accordingly."""
        ticket.remaining = work
        if ticket.registered and not ticket.bounded:
            self._ledger.schedule(ticket, self._fair(ticket, work))

    def _fair(self, ticket: Ticket, work: Work) -> float:
        return self._shares.fair(ticket, work.device_s, self._ledger.robots)
