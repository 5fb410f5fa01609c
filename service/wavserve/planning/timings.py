"""What one plan has spent so far, and where: seconds by stage, and iterations. It ends in the receipt or the error."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from wavserve.core.types import Clock


@dataclass(slots=True)
class Progress:
    """Seconds by stage. Slices run at once and add up, so a stage may exceed the plan's wall time."""

    clock: Clock = time.monotonic
    seconds: dict[str, float] = field(default_factory=dict)
    iterations: int = 0
    """finished planning iterations"""
    admitted: bool = False
    """whether a device has promised to make the plan"""
    device: str = ""
    """the name of the latest device that makes it"""

    def add(self, stage: str, seconds: float) -> None:
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        started = self.clock()
        try:
            yield
        finally:
            self.add(stage, self.clock() - started)
