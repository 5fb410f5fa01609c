"""The line that tells who waits how the run goes, once a second on standard error.

Called by `load.py`; reads the growing journal.
"""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass

from loadtest.robots import figures
from loadtest.robots.journal import Journal
from loadtest.robots.scenario import Phase

RECENT_S = 10.0


@dataclass(slots=True)
class Progress:
    """What is shown: the phase that runs, when it ends, and what the last seconds brought."""

    journal: Journal
    phase: Phase | None = None
    ends: float = 0.0

    def enter(self, phase: Phase, ends: float) -> None:
        """A phase began; the line of the one before stays on the screen."""
        if self.phase is not None:
            self.show()
            print(file=sys.stderr)
        self.phase, self.ends = phase, ends

    async def watch(self) -> None:
        """Until it is cancelled."""
        while True:
            if self.phase is not None:
                self.show()
            await asyncio.sleep(1.0)

    def show(self) -> None:
        end = "\r\033[K" if sys.stderr.isatty() else ""
        print(f"{end}{self.line()}", end="" if end else "\n", file=sys.stderr, flush=True)

    def line(self) -> str:
        """Robots, answers a second, latency, refusals, misses and failures of the phase so far."""
        phase, now = self.phase, time.monotonic()
        assert phase is not None, "shown within a phase"
        asks = self.journal.of(phase.name)
        recent = [ask for ask in figures.answered(asks) if ask.ended > now - RECENT_S]
        began = self.ends - phase.duration_s
        over = max(min(RECENT_S, now - began), 1e-3)
        count = {name: sum(ask.outcome == name for ask in asks) for name in ("refused", "missed", "failed", "lost")}
        p50, p99 = (figures.percentile((ask.seconds for ask in recent), q) or 0.0 for q in (50, 99))
        told = [
            f"{phase.name:<12} {max(now - began, 0.0):4.0f}/{phase.duration_s:.0f} s",
            f"{sum(phase.robots.values())} robots",
            f"{len(recent) / over:.1f} answers/s",
            f"p50 {p50 * 1e3:.0f} p99 {p99 * 1e3:.0f} ms",
            f"refused {count['refused']}",
            f"missed {count['missed']}",
            f"failed {count['failed'] + count['lost']}",
            f"stalls {sum(stall.phase == phase.name for stall in self.journal.stalls)}",
        ]
        return "  ".join(told)
