"""Which of the calls that a backend has are running, since when, and how many device seconds each takes.

A backend tells only when a call ends. When it begins follows from the backend's capacity: a call begins at once when a
worker and, where each model runs one call at a time, its model are free. Otherwise it waits, first come, first served.
Knows calls by their model, and nothing of groups and plans.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import NamedTuple

from wavserve.core.types import Clock
from wavserve.system.stalls import RunTime


@dataclass(slots=True, eq=False)
class HandedCall:
    """A call that the backend has."""

    model: str
    handed_at: float
    started_at: float | None = None
    """None: it waits behind other calls"""
    mark: float = 0.0
    """what the meter showed when it began to run"""
    awake_s: float = 0.0
    """for how long it was seen running"""
    counted_s: float = 0.0
    """the part of it in which its process could run"""
    run_time: RunTime | None = None
    """counts that part; None: the call is young, and all of it counts"""
    stuck: bool = False

    @property
    def runs(self) -> bool:
        return self.started_at is not None


class Charge(NamedTuple):
    """What a call took; both times are 0 for a call that never ran."""

    used_s: float
    """device seconds"""
    run_s: float
    """seconds by the clock, from the moment it began to run"""
    ran: bool = True


class Meter:
    """Charges each call for the time in which it runs.

    Calls that run at once share the time evenly, so the charges sum to the time in which any call ran.
    """

    def __init__(self, clock: Clock = time.monotonic, workers: int = 1, one_call_per_model: bool = False) -> None:
        """`workers` and `one_call_per_model` as in `BatcherConfig`."""
        self._clock = clock
        self._workers, self._one_call_per_model = workers, one_call_per_model
        self.running: list[HandedCall] = []
        self.waiting: list[HandedCall] = []
        self._shown = 0.0  # device seconds of a call that runs since the meter began
        self._at = clock()

    def starts_at_once(self, model: str) -> bool:
        """Whether a call of this model would run at once."""
        if len(self.running) >= self._workers:
            return False
        return not self._one_call_per_model or model not in {call.model for call in self.running}

    def hand_over(self, model: str) -> HandedCall:
        """The backend gets a call."""
        self._advance()
        call = HandedCall(model, self._at)
        self.waiting.append(call)
        self._start_waiting()
        return call

    def end(self, call: HandedCall) -> Charge:
        """A call ended; those that waited for its worker or its model begin to run."""
        self._advance()
        if call.started_at is None:
            self.waiting.remove(call)
            return Charge(0.0, 0.0, ran=False)
        self.running.remove(call)
        self._start_waiting()
        return Charge(self._shown - call.mark, self._at - call.started_at)

    def _start_waiting(self) -> None:
        for call in list(self.waiting):
            if self.starts_at_once(call.model):
                self.waiting.remove(call)
                self.running.append(call)
                call.started_at, call.mark = self._at, self._shown

    def _advance(self) -> None:
        now = self._clock()
        if self.running:
            self._shown += (now - self._at) / len(self.running)
        self._at = now
