"""Each robot's fair share of one device, whatever it sends.

Each plan moves its robot's *paid-until* moment: to the plan's start plus its device time multiplied by the number of
robots that share. Until that moment the robot is beyond its share (a constant bandwidth server, Abeni and Buttazzo,
1998).

**Example.** Robots A and B share a device. A's plan started at 0 s and took 3 device seconds, so A's share has paid for
it at 6 s. At 3 s both ask for a plan of 1 s. A's is paid at 8 s (6 + 2 x 1), B's at 5 s (3 + 2 x 1): B goes first.

Plans with deadlines that are admitted are all in time, so a share decides nothing among them. It counts when somebody
gets less than it asks for: while a robot is refused, a robot beyond its share is refused too; while a robot is short of
planning iterations, a robot beyond its share gets none.
"""

from __future__ import annotations

import math
from collections.abc import Collection

from wavserve.core.errors import Overloaded, RefusalReason
from wavserve.core.types import Clock
from wavserve.scheduling.ledger import Ticket

PATIENCE_S = 0.5
"""How long a robot that got less than it wanted is expected to come back for more."""
MIN_RETRY_S = 0.05
MAX_RETRY_S = 2.0
"""Later than this a prediction is out of date."""


class Shares:
    """What each robot's share has paid for, and which robots got less than they wanted."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._paid_until: dict[str, float] = {}  # robots beyond their share, and the moment from which they are not
        self._refused = _Waiting(clock)  # robots that were refused and are expected to ask again
        self._short = _Waiting(clock)  # robots whose plans were refused an iteration

    def start(self, robot: str) -> float:
        """The moment from which a new plan's share is counted. Its robot is not waiting any more."""
        self._refused.drop(robot)
        now = self._clock()
        return max(now, self._paid_until.get(robot, now))

    def fair(self, ticket: Ticket, work_s: float, planning: Collection[str]) -> float:
        """The moment by which a plan's share has paid for what it used and `work_s` device seconds more.

        Robots share the device when they have a plan there (`planning`) or were refused and will ask again.
        """
        return ticket.starts + (ticket.used_s + work_s) * self._num_robots(planning)

    def settle(self, ticket: Ticket, used_s: float, planning: Collection[str]) -> None:
        """Charges the robot of a plan that ended, whichever way, with device seconds of the plan, on top of what its
        other plans were charged with."""
        now = self._clock()
        begin = max(ticket.starts, self._paid_until.get(ticket.robot, ticket.starts))
        until = begin + used_s * self._num_robots(planning)
        self._paid_until = {robot: moment for robot, moment in self._paid_until.items() if moment > now}
        if until > now:
            self._paid_until[ticket.robot] = until
        ticket.starts = until  # a later charge of the same plan comes on top

    def _num_robots(self, planning: Collection[str]) -> int:
        return len({*planning, *self._refused.robots}) or 1

    def beyond_s(self) -> dict[str, float]:
        """Robots beyond their share, and for how many seconds more."""
        now = self._clock()
        return {robot: moment - now for robot, moment in self._paid_until.items() if moment > now}

    def refused(self) -> set[str]:
        """Robots that were refused and are expected to ask again."""
        return self._refused.robots

    def check(self, robot: str, deadline: float) -> None:
        """Raises Overloaded for a robot beyond its share while others are refused."""
        beyond_s = self._paid_until.get(robot, 0.0) - self._clock()
        if deadline < math.inf and beyond_s > 0 and self._refused.robots - {robot}:
            message = f"other robots wait, and this one is beyond its share of the device for {beyond_s:.3f} s more"
            raise self.refusal(robot, message, beyond_s, reason="share")

    def refusal(
        self,
        robot: str,
        message: str,
        retry_s: float,
        ready_s: float | None = None,
        reason: RefusalReason = "device_time",
    ) -> Overloaded:
        """The error of a refused plan. Its robot is expected to ask again after `retry_after_s`."""
        retry_s = min(max(retry_s, MIN_RETRY_S), MAX_RETRY_S)
        self._refused.add(robot, retry_s + PATIENCE_S)
        return Overloaded(message, retry_s, ready_s, reason)

    def others_first(self, ticket: Ticket) -> bool:
        """Whether spare time belongs to other robots before it belongs to this plan."""
        others = self._refused.robots | (self._short.robots if ticket.starts > self._clock() else set())
        return bool(others - {ticket.robot})

    def note_iteration(self, robot: str, granted: bool) -> None:
        """A robot's plan asked for an iteration and got it, or did not."""
        if granted:
            self._short.drop(robot)
        else:
            self._short.add(robot, PATIENCE_S)


class _Waiting:
    """Robots that got less than they wanted, each for a while."""

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
