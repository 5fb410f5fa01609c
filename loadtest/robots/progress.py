"""The progress line of a run, once a second on standard error. It only reads the growing event log."""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass

from loadtest.robots import figures
from loadtest.robots.event_log import EventLog
from loadtest.robots.scenario import Phase

RECENT_S = 10.0


@dataclass(slots=True)
class Progress:
    """The progress of a run: the current phase, when it ends, and the figures of the last RECENT_S seconds."""

    log: EventLog
    phase: Phase | None = None
    ends: float = 0.0

    def enter(self, phase: Phase, ends: float) -> None:
        """Begins a phase. The last line of the phase before stays on the screen."""
        if self.phase is not None:
            self.show()
            print(file=sys.stderr)
        self.phase, self.ends = phase, ends

    async def watch(self) -> None:
        """Shows the line once a second until it is cancelled."""
        while True:
            if self.phase is not None:
                self.show()
            await asyncio.sleep(1.0)

    def show(self) -> None:
        end = "\r\033[K" if sys.stderr.isatty() else ""
        print(f"{end}{self.line()}", end="" if end else "\n", file=sys.stderr, flush=True)

    def line(self) -> str:
        """Robots, answers a second, latency, refusals, misses, failures and stalls of the phase so far."""
        phase, now = self.phase, time.monotonic()
        assert phase is not None, "shown within a phase"
        requests = self.log.requests_of(phase.name)
        recent = [request for request in figures.answered(requests) if request.ended > now - RECENT_S]
        began = self.ends - phase.duration_s
        over = max(min(RECENT_S, now - began), 1e-3)
        outcomes = ("refused", "missed", "failed", "lost")
        count = {name: sum(request.outcome == name for request in requests) for name in outcomes}
        p50, p99 = (figures.percentile((request.seconds for request in recent), q) or 0.0 for q in (50, 99))
        parts = [
            f"{phase.name:<12} {max(now - began, 0.0):4.0f}/{phase.duration_s:.0f} s",
            f"{sum(phase.robots.values())} robots",
            f"{len(recent) / over:.1f} answers/s",
            f"p50 {p50 * 1e3:.0f} p99 {p99 * 1e3:.0f} ms",
            f"refused {count['refused']}",
            f"missed {count['missed']}",
            f"failed {count['failed'] + count['lost']}",
            f"stalls {sum(stall.phase == phase.name for stall in self.log.stalls)}",
        ]
        return "  ".join(parts)
