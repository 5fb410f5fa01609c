"""What a run reports: counts for the operator, a log line for each tick, reports to the service.

It changes nothing. Knows neither arms nor threads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from wavserve.clients.piper.config import PiperConfig
from wavserve.clients.piper.limits import AXIS_RANGES
from wavserve.clients.piper.log import RunLog
from wavserve.clients.piper.mailbox import Arrived, Asked
from wavserve.clients.piper.vectors import Axes, Units
from wavserve.clients.player import Command
from wavserve.core.control import ExecutionReport, HoldReason

REPORT_EVERY_S = 1.0
"""The longest time between two reports."""


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
    """times that the robot began to wait for a chunk after motion"""
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


@dataclass(frozen=True, slots=True)
class _Playing:
    """The chunk of the latest command; its age and seam at its first command."""

    chunk_id: str = ""
    age_ms: float = 0.0
    seam_jump: float = 0.0


class Recorder:
    """Counts, logs and reports each tick."""

    def __init__(self, config: PiperConfig, log: RunLog) -> None:
        self.counts = Counts()
        self._log = log
        spans = np.array([high - low for low, high in AXIS_RANGES] * len(config.arms))
        self._spans = Units(config).to_policy(spans)
        self._starves = False
        self._accepted: tuple[str, int] = ("", 0)  # the latest chunk, and when its images were captured
        self._playing = _Playing()
        self._reported = Counts()  # as of the last report
        self._reported_s, self._reported_step = -math.inf, 0
        self._reported_state: tuple[str, HoldReason | None] = ("", None)  # chunk and hold

    def asked(self, asked: Asked) -> None:
        """An observation was sent."""
        self._log.write(
            "asked",
            sequence=asked.sequence,
            step=asked.control_step,
            ages_ms=asked.ages_ms,
            left_over=asked.num_left_over,
        )

    def arrived(self, arrived: Arrived, refused: str, step: int, is_approaching: bool) -> None:
        """A chunk came before this step. `refused`: why the robot does not execute it; empty: it will."""
        chunk = arrived.chunk
        if not refused:
            self._accepted = (chunk.chunk_id, chunk.captured_mono_ns)
        self.counts.chunks += not refused
        self.counts.refused_chunks += bool(refused)
        self._log.write(
            "chunk",
            id=chunk.chunk_id,
            sequence=chunk.sequence,
            epoch=chunk.epoch,
            refused=refused,
            approach=is_approaching,
            first_step=chunk.first_control_step,
            step=step,
            frozen=chunk.frozen_prefix_steps,
            latency_s=arrived.latency_s,
            actions=np.round(chunk.actions.astype(np.float64), 6),
            warnings=chunk.warnings,
        )

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
        if command.chunk_id != self._playing.chunk_id:
            self._playing = self._began(tick)
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
        """For the service, of the steps since the last report; None when there is nothing new.

        One is made for each chunk, at the beginning and the end of a hold, and every second.
        """
        state = (tick.command.chunk_id, reason)
        if tick.at_s - self._reported_s < REPORT_EVERY_S and state == self._reported_state:
            return None
        counts, before, first_step = self.counts, self._reported, self._reported_step
        self._reported, self._reported_s, self._reported_step = replace(counts), tick.at_s, tick.step
        self._reported_state = state
        return ExecutionReport(
            chunk_id=tick.command.chunk_id,
            executed_from_step=first_step,
            executed_to_step=tick.step,
            clamped_steps=counts.clamped - before.clamped,
            hold_reason=reason,
            faults=(tick.hold,) if tick.hold else (),
            tracking_error=self._tracking_error(tick),
            chunk_age_ms=self._playing.age_ms,
            seam_jump=self._playing.seam_jump,
            starved_steps=counts.starved - before.starved,
        )

    def _began(self, tick: Tick) -> _Playing:
        """The first command of a chunk, or of a hold."""
        chunk_id, captured_ns = self._accepted
        known = chunk_id == tick.command.chunk_id and captured_ns > 0
        age_ms = max(0.0, (tick.at_s - captured_ns / 1e9) * 1e3) if known else 0.0
        return _Playing(tick.command.chunk_id, age_ms, tick.command.seam_jump or 0.0)

    def _tracking_error(self, tick: Tick) -> float:
        """Largest distance of an axis from its command, as a fraction of its range; 0 without either."""
        action, measured = tick.command.action, tick.measured
        if action is None or measured is None:
            return 0.0
        return float(np.max(np.abs(action - measured) / self._spans))


def _rounded(axes: Axes | None) -> list[float] | None:
    return None if axes is None else [round(value, 6) for value in axes.tolist()]
