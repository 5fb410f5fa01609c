"""What a failed request is told, before either edge spells it: an id, a name, and what would mend it.

Both edges call `report`. An exception nobody raised on purpose gives the client an id and the log the traceback.
"""

from __future__ import annotations

import logging
import uuid
from dataclasses import dataclass

from wavserve.edge.status import INTERNAL, Status, name_of, status_of
from wavserve.errors import InvalidRequest, NotReady, Overloaded, WavserveError

_log = logging.getLogger(__name__)


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


def new_error_id() -> str:
    return f"urn:uuid:{uuid.uuid4()}"


def report(error: Exception, edge: str) -> ErrorReport:
    """The report of an error, which is logged under the same id."""
    error_id = new_error_id()
    status = status_of(error)
    if status is INTERNAL or not isinstance(error, WavserveError):
        _log.error("%s: internal error %s", edge, error_id, exc_info=error)
        return ErrorReport(error_id, "internal", INTERNAL, "an internal error; the log has it under this id", False)
    name = name_of(error)
    level = logging.DEBUG if isinstance(error, NotReady) else logging.INFO  # whoever waits for a start asks often
    _log.log(level, "%s: refused %s: %s: %s", edge, error_id, name, error.message)
    bad = error if isinstance(error, InvalidRequest) else None
    return ErrorReport(
        error_id,
        name,
        status,
        error.message,
        error.retryable,
        retry_after_s=error.retry_after_s if isinstance(error, Overloaded) else None,
        field=bad.field if bad else None,
        expected=bad.expected if bad else None,
        actual=bad.actual if bad else None,
    )
