"""A chunk of actions as a robot executes it: when the next is asked for, and how long the robot stood still.

Called by the simulated robot. Times are seconds of whichever clock the caller reads; nothing here waits. A chunk is
aligned to the control step at which its pictures were taken; the `replan_at` steps that remained then have run when it
begins, so of its actions those after them are executed.
"""

from __future__ import annotations

from dataclasses import dataclass

from loadtest.robots.scenario import RobotGroup


@dataclass(frozen=True, slots=True)
class Stall:
    """A chunk that ran out before the next one came. `at`: when it ran out."""

    at: float
    seconds: float


@dataclass(slots=True)
class Playback:
    """The chunk being executed. A new one begins where the old one ends, or when it comes if that is later."""

    executed: int
    control_hz: float
    replan_at: int
    _began: float | None = None
    _ends: float | None = None
    _base: int = 0
    """control step of the running chunk's first command"""

    @classmethod
    def of(cls, group: RobotGroup) -> Playback:
        return cls(group.executed, group.control_hz, group.replan_at)

    def begin(self, arrived: float) -> Stall | None:
        """A chunk came; the stall that ended with it, if there was one."""
        stall = self.stall(arrived)
        began = arrived if self._ends is None else max(arrived, self._ends)
        self._base = self.step(began)
        self._began, self._ends = began, began + self.executed / self.control_hz
        return stall

    @property
    def ask_at(self) -> float:
        """When the next chunk is to be asked for. Only once a chunk has begun."""
        assert self._ends is not None, "a chunk has begun"
        return self._ends - self.replan_at / self.control_hz

    def stall(self, now: float) -> Stall | None:
        """The time since the last chunk ran out, when it has; a robot that executes nothing never stalls."""
        if self._ends is None or now <= self._ends or not self.executed:
            return None
        return Stall(self._ends, now - self._ends)

    def step(self, now: float) -> int:
        """Index of the next command at a time: every step that has been executed counts."""
        if self._began is None:
            return self._base
        done = int((now - self._began) * self.control_hz + 1e-9)
        return self._base + min(max(done, 0), self.executed)

    def last_until(self, now: float) -> None:
        """The running chunk lasts until now, however long that is: its robot was told to wait for its turn."""
        if self._ends is not None:
            self._ends = now

    def rest(self, now: float) -> None:
        """The robot is switched off for a while: the next chunk follows nothing."""
        self._base = self.step(now)
        self._began = self._ends = None
