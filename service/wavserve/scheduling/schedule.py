"""Who is served when on one device, and what is promised: earliest deadline first within a fair share, and admission.

The planner enters plans here and asks before it spends; the batcher orders groups by `Ticket.rank`. Pure bookkeeping on
a clock and on device seconds foretold by the cost model: nothing waits in here and nothing is queued.

A plan owes work that it must still do (with a deadline: the final decode and whatever iteration is under way; without
one: all of it). In the order of the tickets, the work owed before a plan tells when its turn comes, and how long its
own calls last in company tells when it ends. A plan is admitted, and an iteration granted, only when by this reckoning
neither it nor any plan admitted before comes late: the mandatory and optional parts of imprecise computation (Liu et
al., 1991).

Each robot has a share of the device, whatever it sends. What its plans used, times the robots that share, tells until
when its share has paid (a constant bandwidth server, Abeni and Buttazzo, 1998). A plan without a deadline is scheduled
by the moment at which its share will have paid for it, so it starves nobody and is not starved; one whose deadline is
later than that moment goes no later either, unless for others whose deadlines come before its own. All that are
admitted with a deadline are in time, and the share counts when somebody gets less than it asks for: a robot whose share
has not paid yet then goes without iterations; while others are refused, so is it, and nobody is granted any.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from wavserve.core.errors import DeadlineExceeded, Overloaded
from wavserve.core.types import Clock
from wavserve.scheduling.lateness import Margin

PATIENCE_S = 0.5
"""How long a robot that got less than it wanted is expected to come back for more."""
MIN_RETRY_S = 0.05
MAX_RETRY_S = 2.0
"""What was foretold is old by then."""


@dataclass(frozen=True, slots=True)
class Work:
    """Calls to be made for one plan, one after another."""

    device_s: float = 0.0
    """device seconds of them all"""
    path_s: float = 0.0
    """how long they last once they begin: other plans' calls run beside them, and other plans' groups in them"""

    def __add__(self, other: Work) -> Work:
        return Work(self.device_s + other.device_s, self.path_s + other.path_s)

    def __mul__(self, times: float) -> Work:
        return Work(self.device_s * times, self.path_s * times)


@dataclass(frozen=True, slots=True)
class Demand:
    """What a plan will take."""

    robot: str
    """whose share pays for it"""
    floor: Work
    """with no planning iteration at all"""
    whole: Work
    """with all that were asked for"""
    least_s: float = 0.0
    """`floor` when all goes as well as it ever did"""


Rank = tuple[float, float, int]
"""By what is scheduled: `Ticket.due`, then the deadline, then the order of entering."""


@dataclass(slots=True, eq=False)
class Ticket:
    """One plan's place in the order. Owned by the schedule; others read it. The default is a plan that shares nothing
    with anybody."""

    deadline: float = math.inf
    robot: str = ""
    number: int = 0
    """order of entering"""
    starts: float = 0.0
    """from where the robot's share of the device is counted"""
    owed: Work = Work()
    """what must still be done"""
    used_s: float = 0.0
    """device seconds spent"""
    due: float = math.inf
    """scheduled by this moment"""
    foretold: float | None = None
    """when it would end, as was foretold when its last calls began"""
    entered: bool = False
    """whether it is in a schedule now"""

    @property
    def bounded(self) -> bool:
        """Whether it has a deadline."""
        return self.deadline < math.inf

    @property
    def rank(self) -> Rank:
        """Lower goes first."""
        return self.due, self.deadline, self.number

    def paid(self, foretold_s: float, used_s: float) -> None:
        """A call did some of what was owed."""
        if self.owed.device_s > 0:
            self.owed *= max(0.0, 1 - foretold_s / self.owed.device_s)
        self.used_s += used_s


class _Waiting:
    """Robots that want more than they got, each for a while."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until: dict[str, float] = {}

    @property
    def robots(self) -> set[str]:
        now = self._clock()
        self._until = {robot: until for robot, until in self._until.items() if until > now}
        return set(self._until)

    def add(self, robot: str, seconds: float) -> None:
        self._until[robot] = self._clock() + seconds

    def drop(self, robot: str) -> None:
        self._until.pop(robot, None)


class Schedule:
    """The plans admitted to one device."""

    def __init__(self, longest_s: Callable[[], float] = lambda: 0.0, clock: Clock = time.monotonic) -> None:
        """`longest_s`: how long a call may take that a more urgent plan must wait for."""
        self._longest_s = longest_s
        self._clock = clock
        self._tickets: dict[int, Ticket] = {}
        self._numbers = itertools.count(1)
        self._left_off: dict[str, float] = {}  # robots that used more than their share until now: until when it pays
        self._refused = _Waiting(clock)  # robots that were told to ask again, and are expected to
        self._short = _Waiting(clock)  # robots whose plans were not granted an iteration a moment ago
        self._margin = Margin(clock)

    @property
    def owed_s(self) -> float:
        """Device seconds that all plans here still must have."""
        return sum(ticket.owed.device_s for ticket in self._tickets.values())

    def admit(self, demand: Demand, deadline: float) -> Ticket:
        """Enters a plan.

        Raises DeadlineExceeded when no plan was ever so fast: it need not be asked again. Overloaded when as things
        are it, or through it another one, is foretold to miss its deadline.
        """
        if demand.least_s > (left_s := deadline - self._clock()):
            raise DeadlineExceeded(f"{left_s:.3f} s are left, and a plan takes {demand.least_s:.3f} s at the least")
        self._check_share(demand.robot, deadline)
        idle_s = max(demand.floor.device_s, demand.floor.path_s) + self._margin.seconds
        if idle_s > left_s:  # nobody's giving way would help: what slows the device must pass
            message = f"a plan would take {idle_s:.3f} s on an idle device as it is now, and {left_s:.3f} s are left"
            raise Overloaded(message, MAX_RETRY_S, idle_s)
        before = self._late()
        ticket = self.enter(demand, deadline)
        late = self._late()
        if ticket.bounded and late.keys() - before.keys():  # its own among them
            ready_s = self._ends()[ticket.number] - self._clock()
            self._remove(ticket)
            over_s = max(late[number] for number in late.keys() - before.keys())
            message = f"a plan would be ready in {ready_s:.3f} s, too late for a deadline that is to be kept"
            raise self._refuse(demand.robot, message, over_s, ready_s)
        return ticket

    def grant(self, ticket: Ticket, now: Work, later: Work) -> bool:
        """Whether a plan may do more work `now`, with `later` still owed after it.

        Without a deadline always; with one, not while a robot is refused, for nobody shall be refused for another's
        better plan, nor for a robot beyond its share while others are short of iterations. What is granted is owed;
        what is not leaves `later` owed.
        """
        if ticket.bounded and self._is_for_others(ticket):
            ticket.owed = later
            return False
        before = self._late().keys()
        self._owe(ticket, now + later)
        late = self._late().keys()
        if not ticket.bounded or not (ticket.number in late or late - before):
            self._short.drop(ticket.robot)
            return True
        ticket.owed = later
        self._short.add(ticket.robot, PATIENCE_S)
        return False

    def finish(self, ticket: Ticket, work: Work) -> None:
        """A plan's last calls begin. What it was promised before stays."""
        ticket.owed = work
        ticket.foretold = self._ends().get(ticket.number)

    def soonest_s(self) -> float:
        """Seconds until the first of the plans here is foretold to end; 0 when there is none."""
        return min(self._ends().values(), default=self._clock()) - self._clock()

    def leave(self, ticket: Ticket) -> None:
        """A plan ended, whichever way. Its robot's share is charged with what it used."""
        until = ticket.starts + ticket.used_s * self._robots()
        self._remove(ticket)
        now = self._clock()
        self._left_off = {robot: moment for robot, moment in self._left_off.items() if moment > now}
        if until > now:
            self._left_off[ticket.robot] = until

    def ended(self, ticket: Ticket) -> None:
        """A plan is made: what was foretold of its end is compared with the clock."""
        if ticket.foretold is not None:
            self._margin.learn(self._clock() - ticket.foretold)

    def _is_for_others(self, ticket: Ticket) -> bool:
        """Whether time that nobody owes is other robots' before it is this plan's."""
        others = self._refused.robots | (self._short.robots if ticket.starts > self._clock() else set())
        return bool(others - {ticket.robot})

    def _check_share(self, robot: str, deadline: float) -> None:
        """While others are kept waiting, a robot that used more than its share is not admitted before it paid."""
        paid_s = self._left_off.get(robot, 0.0) - self._clock()
        if deadline < math.inf and paid_s > 0 and self._refused.robots - {robot}:
            message = f"other robots wait, and this one has used its share of the device for {paid_s:.3f} s to come"
            raise self._refuse(robot, message, paid_s)

    def _refuse(self, robot: str, message: str, retry_s: float, ready_s: float | None = None) -> Overloaded:
        retry_s = min(max(retry_s, MIN_RETRY_S), MAX_RETRY_S)
        self._refused.add(robot, retry_s + PATIENCE_S)
        return Overloaded(message, retry_s, ready_s)

    def enter(self, demand: Demand, deadline: float) -> Ticket:
        """Enters a plan that was admitted already, here or elsewhere."""
        now = self._clock()
        self._refused.drop(demand.robot)
        starts = max(now, self._left_off.get(demand.robot, now))
        ticket = Ticket(deadline, demand.robot, next(self._numbers), starts, entered=True)
        self._tickets[ticket.number] = ticket
        if ticket.bounded:
            ticket.due = self._due(ticket, starts + demand.whole.device_s * self._robots())
        self._owe(ticket, demand.floor if ticket.bounded else demand.whole)
        return ticket

    def _due(self, ticket: Ticket, fair: float) -> float:
        """By when a plan with a deadline is scheduled: by that, or by `fair` where that is sooner, yet in the order of
        deadlines among all that have one. So only those that have none go behind it for its share."""
        others = [other for other in self._tickets.values() if other.bounded and other is not ticket]
        before = (other.due for other in others if other.deadline <= ticket.deadline)
        behind = (other.due for other in others if other.deadline > ticket.deadline)
        return min([ticket.deadline, max([fair, *before]), *behind])

    def _owe(self, ticket: Ticket, work: Work) -> None:
        """A plan shall have so much done for it, and is scheduled accordingly."""
        ticket.owed = work
        if ticket.entered and not ticket.bounded:
            self._give_way(ticket, ticket.starts + (ticket.used_s + work.device_s) * self._robots())

    def _remove(self, ticket: Ticket) -> None:
        ticket.entered = False
        self._tickets.pop(ticket.number, None)

    def _give_way(self, ticket: Ticket, fair: float) -> None:
        """Schedules a plan without a deadline by `fair`, or behind the plans that it would make late."""
        del self._tickets[ticket.number]
        late_anyway = self._late().keys()
        self._tickets[ticket.number], ticket.due = ticket, fair
        while pushed := [
            other.due
            for number in self._late().keys() - late_anyway
            if (other := self._tickets[number]).rank > ticket.rank
        ]:
            ticket.due = math.nextafter(max(pushed), math.inf)

    def _robots(self) -> int:
        """How many share the device: those with a plan under way, and those that were refused and will ask again."""
        return len({ticket.robot for ticket in self._tickets.values()} | self._refused.robots) or 1

    def _ends(self) -> dict[int, float]:
        """When each plan is foretold to end, by number: after all work owed before it in the order of ranks, and its
        own as it lasts.

        The first that was not served yet waits for the call that runs, and those behind it with it.
        """
        ends, end, waits_s = {}, self._clock(), self._longest_s() if len(self._tickets) > 1 else 0.0
        for ticket in sorted(self._tickets.values(), key=lambda ticket: ticket.rank):
            if not ticket.used_s:
                end, waits_s = end + waits_s, 0.0
            ends[ticket.number] = end + max(ticket.owed.device_s, ticket.owed.path_s)
            end += ticket.owed.device_s
        return ends

    def _late(self) -> dict[int, float]:
        """By how much each plan is foretold to miss its deadline; those that meet it are not in it."""
        late = {}
        for number, end in self._ends().items():
            if (over := end + self._margin.seconds - self._tickets[number].deadline) > 0:
                late[number] = over
        return late
