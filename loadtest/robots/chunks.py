"""A robot's playback of action chunks: when it requests the next chunk, and how long it stood still.

Times are seconds of the caller's clock; nothing here waits. A chunk is aligned to the control step at which its images
were taken. The robot executes `replan_at` steps while the chunk is planned. It therefore skips that many actions.
"""

from __future__ import annotations

from dataclasses import dataclass

from loadtest.robots.scenario import RobotGroup


@dataclass(frozen=True, slots=True)
class Stall:
    """The time from the end of a chunk, `at`, until the next chunk arrives."""

    at: float
    seconds: float


@dataclass(slots=True)
class Playback:
    """The chunk that is being executed. A new chunk begins at the end of the old one, or at its later arrival."""

    executed: int
    control_hz: float
    replan_at: int
    _began: float | None = None
    _ends: float | None = None
    _first_step: int = 0
    """control step of the running chunk's first command"""

    @classmethod
    def of(cls, group: RobotGroup) -> Playback:
        return cls(group.executed, group.control_hz, group.replan_at)

    def begin(self, arrived: float) -> Stall | None:
        """Begins the chunk that arrived. Returns the stall that it ends, if there is one."""
        stall = self.stall(arrived)
        began = arrived if self._ends is None else max(arrived, self._ends)
        self._first_step = self.step(began)
        self._began, self._ends = began, began + self.executed / self.control_hz
        return stall

    @property
    def request_at(self) -> float:
        """When the robot requests the next chunk. A chunk must have begun."""
        assert self._ends is not None, "a chunk has begun"
        return self._ends - self.replan_at / self.control_hz

    def stall(self, now: float) -> Stall | None:
        """The stall since the last chunk ran out, if it has. A robot that executes no steps never stalls."""
        if self._ends is None or now <= self._ends or not self.executed:
            return None
        return Stall(self._ends, now - self._ends)

    def step(self, now: float) -> int:
        """Index of the next command at a time: the number of steps executed so far."""
        if self._began is None:
            return self._first_step
        done = int((now - self._began) * self.control_hz + 1e-9)
        return self._first_step + min(max(done, 0), self.executed)

    def extend_to(self, now: float) -> None:
        """Extends the running chunk until now, because a wait for a slot is not a stall."""
        if self._ends is not None:
            self._ends = now

    def pause(self, now: float) -> None:
        """Switches the robot off for a while. The next chunk begins on arrival, and the pause is not a stall."""
        self._first_step = self.step(now)
        self._began = self._ends = None
