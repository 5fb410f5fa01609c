"""The report of a failed request for the client: an id, a name, a status and the facts that help to correct it.

Each edge encodes the report in its own way. For an unexpected exception the client gets only an id, and the log has the
traceback under that id.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from dataclasses import field as field_of

from wavserve.core.errors import DeadlineExceeded, InvalidRequest, NotReady, Overloaded, UnsafeChunk, WavserveError
from wavserve.edge.status import INTERNAL, ErrorStatus, http_status, name_of, status_of
from wavserve.system.texts import printable

_log = logging.getLogger(__name__)

MAX_FACT_CHARS = 300
MAX_DETAIL_CHARS = 800
_RETRYABLE = (408, 503)


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """One failure, for the client. `field`, `expected` and `actual` are set together, for bad input only."""

    error_id: str
    name: str
    status: ErrorStatus
    detail: str
    retryable: bool
    retry_after_s: float | None = None
    field: str | None = None
    expected: str | None = None
    actual: str | None = None
    facts: Mapping[str, str | float] = field_of(default_factory=dict)
    """facts of this kind of error only: what a refusal predicts, how a plan missed its deadline, the limit it breaks"""

    def all_facts(self) -> dict[str, bool | str | float]:
        """The facts under their public names. A fact that does not apply is left out."""
        facts = {
            "retryable": self.retryable,
            "retry_after_s": self.retry_after_s,
            "field": self.field,
            "expected": self.expected,
            "actual": self.actual,
            **self.facts,
        }
        return {name: value for name, value in facts.items() if value is not None}


def new_error_id() -> str:
    return f"urn:uuid:{uuid.uuid4()}"


def safe_text(text: str, max_chars: int = MAX_FACT_CHARS) -> str:
    """A text that every wire, log and terminal shows as one line. What does not print is escaped."""
    escaped = printable(text[:max_chars])
    return escaped if len(text) <= max_chars >= len(escaped) else f"{escaped[: max_chars - 3]}..."


def log_refusal(problem: ErrorReport, edge: str, level: int = logging.INFO) -> None:
    """Logs a refused request under the id that its answer has."""
    _log.log(level, "%s: %s (%s): %s", edge, problem.name, problem.error_id, problem.detail)


def http_problem(code: int, detail: str) -> ErrorReport:
    """The report of a failure for which HTTP has a status and we have no error: an unknown path. Does not log it."""
    status = http_status(code)
    name = status.title.lower().replace(" ", "-")
    return ErrorReport(new_error_id(), name, status, safe_text(detail, MAX_DETAIL_CHARS), code in _RETRYABLE)


def internal(error: Exception, edge: str) -> ErrorReport:
    """Logs an unexpected error with its traceback and makes a report that has only the id."""
    error_id = new_error_id()
    _log.error("%s: internal error %s", edge, error_id, exc_info=error)
    detail = "an internal error; the server's log has the traceback under this id"
    return ErrorReport(error_id, "internal", INTERNAL, detail, False)


def report(error: Exception, edge: str) -> ErrorReport:
    """Logs an error and makes its report, under the same id. Every text of the report is safe to send."""
    status = status_of(error)
    if status is INTERNAL or not isinstance(error, WavserveError):
        return internal(error, edge)
    error_id, name, detail = new_error_id(), name_of(error), safe_text(error.message, MAX_DETAIL_CHARS)
    bad = error if isinstance(error, InvalidRequest) else None
    problem = ErrorReport(
        error_id,
        name,
        status,
        detail,
        error.retryable,
        retry_after_s=error.retry_after_s if isinstance(error, Overloaded) else None,
        field=safe_text(bad.field) if bad else None,
        expected=safe_text(bad.expected) if bad else None,
        actual=safe_text(bad.actual) if bad else None,
        facts=_facts(error),
    )
    asked_often = isinstance(error, NotReady)  # by clients that wait for the service
    log_refusal(problem, edge, logging.DEBUG if asked_often else logging.INFO)
    return problem


def _facts(error: WavserveError) -> dict[str, str | float]:
    if isinstance(error, Overloaded) and error.predicted_s is not None:
        return {"predicted_s": error.predicted_s}
    if isinstance(error, DeadlineExceeded) and error.missed is not None:
        return {"deadline": "missed", **asdict(error.missed)}
    if isinstance(error, UnsafeChunk) and error.broken is not None:
        return asdict(error.broken) | {"name": safe_text(error.broken.name)}
    return {}
