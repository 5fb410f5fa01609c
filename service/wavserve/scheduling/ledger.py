"""The plans of one device in the order of service, the work each still needs, and when each will end.

Pure bookkeeping on a clock and on predicted device seconds. It promises nothing: `admission` asks it who would be late,
and `shares` decides what is fair.

**Example.** Three plans need 2, 1 and 3 device seconds, and their deadlines are in 4, 7 and 10 s. They are served in
the order of their deadlines, so they end after 2, 3 and 6 s. Nobody is late. A fourth plan needs 3 s and has its
deadline in 6 s, so it goes second. Then the plans end after 2, 5, 6 and 9 s, which is still in time. A fifth of the
same kind would end after 8 s and push the last two to 9 and 12 s; `late` names all three.

The order is the ticket's `rank`. For a plan with a deadline, `due` is its deadline, or its fair moment when that comes
first. For a plan without a deadline, `due` is its fair moment, or later when it would make another plan late.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

from wavserve.core.types import Clock
from wavserve.scheduling.lateness import Lateness


@dataclass(frozen=True, slots=True)
class Work:
    """Calls of one plan, one after another."""

    device_s: float = 0.0
    """device seconds of all of them"""
    wall_s: float = 0.0
    """seconds by the clock, from the first call to the end of the last; other plans' calls run beside them"""

    def __add__(self, other: Work) -> Work:
        return Work(self.device_s + other.device_s, self.wall_s + other.wall_s)

    def __mul__(self, times: float) -> Work:
        return Work(self.device_s * times, self.wall_s * times)


Rank = tuple[float, float, int]
"""The order of service: `Ticket.due`, then the deadline, then the order of registration."""


@dataclass(slots=True, eq=False)
class Ticket:
    """One plan's place in the order. The ledger owns it; others read it. The default ticket is in no ledger."""

    deadline: float = math.inf
    robot: str = ""
    number: int = 0
    """order of registration"""
    alone: bool = False
    """whether its groups share no call with others: what they compute then does not depend on the load"""
    yields: bool = False
    """whether its calls are cancelled when a plan begins, so that no plan waits for them"""
    starts: float = 0.0
    """the moment from which the robot's share is counted"""
    remaining: Work = Work()
    """what the plan still needs"""
    used_s: float = 0.0
    """device seconds spent"""
    due: float = math.inf
    """the moment by which the plan is scheduled"""
    predicted_end: float | None = None
    """as predicted when the last calls began"""
    registered: bool = False
    after_end: Callable[[float], None] | None = None
    """takes the device seconds of a call that outlived the plan; None: the plan has not ended"""

    @property
    def bounded(self) -> bool:
        """Whether the plan has a deadline."""
        return self.deadline < math.inf

    @property
    def rank(self) -> Rank:
        """Lower goes first."""
        return self.due, self.deadline, self.number

    def charge(self, predicted_s: float, used_s: float) -> None:
        """A call did `predicted_s` of the remaining work and took `used_s` device seconds."""
        if self.remaining.device_s > 0:
            self.remaining *= max(0.0, 1 - predicted_s / self.remaining.device_s)
        self.used_s += used_s
        if self.after_end is not None:
            self.after_end(used_s)


class Ledger:
    """The tickets of one device."""

    def __init__(self, longest_s: Callable[[], float], clock: Clock) -> None:
        """`longest_s`: the longest call that a more urgent plan may have to wait for."""
        self.lateness = Lateness(clock)
        self._longest_s = longest_s
        self._clock = clock
        self._tickets: dict[int, Ticket] = {}
        self._numbers = itertools.count(1)

    @property
    def remaining_s(self) -> float:
        """Device seconds that all plans still need."""
        return sum(ticket.remaining.device_s for ticket in self._tickets.values())

    @property
    def tickets(self) -> tuple[Ticket, ...]:
        """In the order of registration."""
        return tuple(self._tickets.values())

    @property
    def robots(self) -> set[str]:
        """Robots with a plan here."""
        return {ticket.robot for ticket in self._tickets.values()}

    def add(self, deadline: float, robot: str, starts: float, alone: bool = False) -> Ticket:
        """A new ticket, without work and not yet scheduled."""
        ticket = Ticket(deadline, robot, next(self._numbers), alone, starts=starts, registered=True)
        self._tickets[ticket.number] = ticket
        return ticket

    def remove(self, ticket: Ticket) -> None:
        """Takes a ticket out. Does nothing for an unknown ticket."""
        ticket.registered = False
        self._tickets.pop(ticket.number, None)

    def schedule(self, ticket: Ticket, fair: float) -> None:
        """Sets when a ticket is due. `fair`: the moment by which its robot's share has paid for it."""
        if ticket.bounded:
            ticket.due = self._due(ticket, fair)
        else:
            self._yield_to_others(ticket, fair)

    def ends(self) -> dict[int, float]:
        """The predicted end of each plan, by its ticket's number.

        A plan starts after all device work of the plans before it. Its own calls then take their wall time.
        The first plan that was not served yet waits for the running call, and so do those behind it.
        """
        ends, end, waits_s = {}, self._clock(), self._longest_s() if len(self._tickets) > 1 else 0.0
        for ticket in sorted(self._tickets.values(), key=lambda ticket: ticket.rank):
            if not ticket.used_s:
                end, waits_s = end + waits_s, 0.0
            ends[ticket.number] = end + max(ticket.remaining.device_s, ticket.remaining.wall_s)
            end += ticket.remaining.device_s
        return ends

    def late(self) -> dict[int, float]:
        """The plans that are predicted to miss their deadline, with the seconds they miss it by."""
        late = {}
        for number, end in self.ends().items():
            if (over := end + self.lateness.margin_s - self._tickets[number].deadline) > 0:
                late[number] = over
        return late

    def _due(self, ticket: Ticket, fair: float) -> float:
        """The deadline, or the fair moment when that comes first.

        Plans with deadlines keep the order of their deadlines among themselves. So a plan that goes early for its share
        passes only plans without a deadline.
        """
        others = [other for other in self._tickets.values() if other.bounded and other is not ticket]
        before = (other.due for other in others if other.deadline <= ticket.deadline)
        behind = (other.due for other in others if other.deadline > ticket.deadline)
        return min([ticket.deadline, max([fair, *before]), *behind])

    def _yield_to_others(self, ticket: Ticket, fair: float) -> None:
        """Schedules a plan without a deadline by its fair moment, or behind the plans that it would make late."""
        del self._tickets[ticket.number]
        late_anyway = self.late().keys()
        self._tickets[ticket.number], ticket.due = ticket, fair
        while pushed := [
            other.due
            for number in self.late().keys() - late_anyway
            if (other := self._tickets[number]).rank > ticket.rank
        ]:
            ticket.due = math.nextafter(max(pushed), math.inf)
