"""What a failed request is told, before either edge spells it: an id, a name, and what would mend it.

Both edges call `report`. An exception nobody raised on purpose gives the client an id and the log the traceback.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from dataclasses import field as field_of

from wavserve.core.errors import DeadlineExceeded, InvalidRequest, NotReady, Overloaded, WavserveError
from wavserve.edge.status import INTERNAL, Status, name_of, status_of

_log = logging.getLogger(__name__)

MAX_FACT_CHARS = 300
MAX_DETAIL_CHARS = 800


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """One failure as the client may know it. `field`, `expected`, `actual` are set together, for bad input."""

    error_id: str
    name: str
    status: Status
    detail: str
    retryable: bool
    retry_after_s: float | None = None
    field: str | None = None
    expected: str | None = None
    actual: str | None = None
    facts: Mapping[str, str | float] = field_of(default_factory=dict)
    """more that this kind of error tells: a prediction, or what was spent on a missed plan"""


def new_error_id() -> str:
    return f"urn:uuid:{uuid.uuid4()}"


def safe_text(text: str, max_chars: int = MAX_FACT_CHARS) -> str:
    """A text that every wire and log can carry: lone surrogates (JSON has them) escaped, and no longer than that."""
    escaped = text[:max_chars].encode("utf-8", "backslashreplace").decode()
    return escaped if len(text) <= max_chars >= len(escaped) else f"{escaped[: max_chars - 3]}..."


def internal(error: Exception, edge: str) -> ErrorReport:
    """The report of an error nobody raised on purpose: the client is told an id, the log the traceback."""
    error_id = new_error_id()
    _log.error("%s: internal error %s", edge, error_id, exc_info=error)
    return ErrorReport(error_id, "internal", INTERNAL, "an internal error; the log has it under this id", False)


def report(error: Exception, edge: str) -> ErrorReport:
    """The report of an error, which is logged under the same id. Its texts are safe to send."""
    status = status_of(error)
    if status is INTERNAL or not isinstance(error, WavserveError):
        return internal(error, edge)
    error_id, name, detail = new_error_id(), name_of(error), safe_text(error.message, MAX_DETAIL_CHARS)
    level = logging.DEBUG if isinstance(error, NotReady) else logging.INFO  # whoever waits for a start asks often
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
