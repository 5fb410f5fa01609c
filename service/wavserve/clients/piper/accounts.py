"""What a run tells others: counts, the line of each tick, the report to the service, the operator's status.

It changes nothing. Knows neither arms nor threads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from wavserve.clients.piper.config import PiperConfig
from wavserve.clients.piper.limits import AXIS_RANGES
from wavserve.clients.piper.log import RunLog
from wavserve.clients.piper.vectors import Axes, Units
from wavserve.clients.player import Command
from wavserve.core.control import ExecutionReport, HoldReason

REPORT_EVERY_S = 1.0


@dataclass(slots=True)
class Counts:
    """Of one run."""

    ticks: int = 0
    executed: int = 0
    """steps with an action of a chunk"""
    clamped: int = 0
    held: int = 0
    """armed steps without an action"""
    starved: int = 0
    """of those, the ones that waited for a chunk after motion"""
    pauses: int = 0
    """times that the robot came to rest so"""
    chunks: int = 0
    refused_chunks: int = 0
    holds: int = 0
    faults: int = 0
    max_seam_jump: float = 0.0
    """as a fraction of an axis's range"""


@dataclass(frozen=True, slots=True)
class Tick:
    """One control step, as it was decided."""

    at_s: float
    late_s: float
    phase: str
    hold: str
    step: int
    command: Command
    measured: Axes | None


class Accounts:
    """Counts and tells each tick."""

    def __init__(self, config: PiperConfig, log: RunLog) -> None:
        self.counts = Counts()
        self._log = log
        spans = np.array([high - low for low, high in AXIS_RANGES] * len(config.arms))
        self._spans = Units(config).to_policy(spans)
        self._starves = False
        self._reported_s = -math.inf
        self._reported_step = 0

    def add(self, tick: Tick, waits: bool) -> None:
        """`waits`: the robot may move, and nothing but the lack of a chunk holds it."""
        counts, command = self.counts, tick.command
        counts.ticks += 1
        counts.executed += command.source != "hold"
        counts.held += command.source == "hold" and command.action is not None
        starves = command.starved and waits
        counts.starved += starves
        counts.pauses += starves and not self._starves
        self._starves = starves
        counts.clamped += bool(command.clamped) and command.source != "hold"
        counts.max_seam_jump = max(counts.max_seam_jump, command.seam_jump or 0.0)
        self._log.write(
            "tick",
            at=round(tick.at_s, 5),
            late_ms=round(tick.late_s * 1e3, 2),
            phase=tick.phase,
            hold=tick.hold,
            step=tick.step,
            source=command.source,
            chunk=command.chunk_id,
            index=command.index,
            command=_rounded(command.action),
            measured=_rounded(tick.measured),
            clamped=command.clamped,
            seam=command.seam_jump,
            starved=command.starved,
        )

    def report(self, tick: Tick, reason: HoldReason | None) -> ExecutionReport | None:
        """For the service, once a second; None in between."""
        if tick.at_s - self._reported_s < REPORT_EVERY_S:
            return None
        self._reported_s = tick.at_s
        action, measured, error = tick.command.action, tick.measured, 0.0
        if action is not None and measured is not None:
            error = float(np.max(np.abs(action - measured) / self._spans))
        before, self._reported_step = self._reported_step, tick.step
        return ExecutionReport(
            chunk_id=tick.command.chunk_id,
            executed_from_step=before,
            executed_to_step=tick.step,
            clamped_steps=self.counts.clamped,
            hold_reason=reason,
            faults=(tick.hold,) if tick.hold else (),
            tracking_error=error,
            seam_jump=self.counts.max_seam_jump,
            starved_steps=self.counts.starved,
        )


def _rounded(axes: Axes | None) -> list[float] | None:
    return None if axes is None else [round(value, 6) for value in axes.tolist()]
