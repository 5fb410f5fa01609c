"""What a client learns about a failed request: an id, a name, a status and what would fix it. Each edge writes it out.

An unexpected exception gives the client only an id; the log has its traceback under that id.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from dataclasses import field as field_of

from wavserve.core.errors import DeadlineExceeded, InvalidRequest, NotReady, Overloaded, WavserveError
from wavserve.edge.status import INTERNAL, ErrorStatus, name_of, status_of

_log = logging.getLogger(__name__)

MAX_FACT_CHARS = 300
MAX_DETAIL_CHARS = 800


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """One failure as the client sees it. `field`, `expected` and `actual` are set together, for bad input only."""

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
    """further values of this kind of error: a prediction, or what was spent on a plan that missed its deadline"""


def new_error_id() -> str:
    return f"urn:uuid:{uuid.uuid4()}"


def safe_text(text: str, max_chars: int = MAX_FACT_CHARS) -> str:
    """A text that every wire and log can carry: lone surrogates (JSON allows them) are escaped, a long text is cut."""
    escaped = text[:max_chars].encode("utf-8", "backslashreplace").decode()
    return escaped if len(text) <= max_chars >= len(escaped) else f"{escaped[: max_chars - 3]}..."


def internal(error: Exception, edge: str) -> ErrorReport:
    """The report of an unexpected error: the client gets an id, the log the traceback under the same id."""
    error_id = new_error_id()
    _log.error("%s: internal error %s", edge, error_id, exc_info=error)
    detail = "an internal error; the server's log has the traceback under this id"
    return ErrorReport(error_id, "internal", INTERNAL, detail, False)


def report(error: Exception, edge: str) -> ErrorReport:
    """Logs an error and makes its report, with the same id. The report's texts are safe to send."""
    status = status_of(error)
    if status is INTERNAL or not isinstance(error, WavserveError):
        return internal(error, edge)
    error_id, name, detail = new_error_id(), name_of(error), safe_text(error.message, MAX_DETAIL_CHARS)
    level = logging.DEBUG if isinstance(error, NotReady) else logging.INFO  # clients that wait for the start ask often
    _log.log(level, "%s: %s (%s): %s", edge, name, error_id, detail)
    bad = error if isinstance(error, InvalidRequest) else None
    return ErrorReport(
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


def _facts(error: WavserveError) -> dict[str, str | float]:
    if isinstance(error, Overloaded) and error.predicted_s is not None:
        return {"predicted_s": error.predicted_s}
    if isinstance(error, DeadlineExceeded) and error.missed is not None:
        return {"deadline": "missed", **asdict(error.missed)}
    return {}
