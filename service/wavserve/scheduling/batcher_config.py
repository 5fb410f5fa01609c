"""What a dispatcher is told, and what it tells: its limits, and the callbacks for calls.

Knows neither groups nor calls.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

OnStuck = Callable[[str], None]
"""Receives the model of a call that stands still."""
OnCall = Callable[[str, int, int, float], None]
"""Receives verb, groups, rows and seconds (by the clock, from when it began to run) of every call."""


def ignore_call(verb: str, groups: int, rows: int, seconds: float) -> None:
    """An `OnCall` that does nothing."""


@dataclass(frozen=True, slots=True)
class BatcherConfig:
    """Limits of one dispatcher."""

    max_rows: int
    """video samples (or other rows) in one call"""
    workers: int
    """calls that the backend runs at once"""
    depth: int
    """calls that the backend has at a time: the running ones and those that wait behind them"""
    slice_s: float
    """how long the calls that the backend has may take together"""
    arena_retry_s: float
    """pause before a full arena is tried again while this process holds none of its slots"""
    one_call_per_model: bool = False
    """whether each model runs one call at a time, as a model in a process of its own does"""
    hang_s: float = math.inf
    """a call that runs for so long is stuck, whatever was predicted; see `stalls`"""
    max_arena_wait_s: float = math.inf
    """how long a group waits for slots of a full arena: longer than a lease lasts"""

    @property
    def call_s(self) -> float:
        """The longest that one call should take."""
        return self.slice_s / (1 + max(0, self.depth - self.workers))
