"""A robot's reports of what it executed: checks and counts them, keeps the last one for onlookers. Changes no plan."""

from __future__ import annotations

from wavserve.core.control import ExecutionReport
from wavserve.core.errors import InvalidRequest
from wavserve.edge.grpc.control.robots import Robot
from wavserve.edge.report import safe_text
from wavserve.system.control_metrics import ControlMetrics

MAX_FAULT_CHARS = 200
_NUMBERS = ("tracking_error", "chunk_age_ms", "seam_jump")
_MAX_NUMBER = 1e9
"""Sums of larger numbers lose the others in a metric, or become infinite for good."""
_MAX_STEPS = 1_000_000


class Reports:
    """The reports of one robot."""

    def __init__(self, robot: Robot, metrics: ControlMetrics) -> None:
        self._robot = robot
        self._metrics = metrics

    def take(self, report: ExecutionReport) -> None:
        """Counts a report. Raises InvalidRequest for numbers that no robot can mean."""
        _check(report)
        last = self._robot.last_report
        holds = report.hold_reason if last is None or last.hold_reason is not report.hold_reason else None
        self._metrics.executed(report.clamped_steps, report.starved_steps, None if holds is None else holds.value)
        if report.chunk_id and (last is None or last.chunk_id != report.chunk_id):
            self._metrics.changed_chunk(report.chunk_age_ms / 1e3, report.seam_jump)
        self._robot.last_report = report


def _check(report: ExecutionReport) -> None:
    for name in _NUMBERS:
        number = getattr(report, name)
        if not 0 <= number <= _MAX_NUMBER:  # also true for NaN
            raise InvalidRequest(name, f"0 to {_MAX_NUMBER:g}", number)
    for name in ("clamped_steps", "starved_steps"):
        if getattr(report, name) > _MAX_STEPS:
            raise InvalidRequest(name, f"0 to {_MAX_STEPS}", getattr(report, name))
    if report.executed_to_step < report.executed_from_step:
        raise InvalidRequest("executed_to_step", f"at least {report.executed_from_step}", report.executed_to_step)
    for index, fault in enumerate(report.faults):
        if len(fault) > MAX_FAULT_CHARS:
            raise InvalidRequest(f"faults[{index}]", f"at most {MAX_FAULT_CHARS} characters", safe_text(fault, 32))
