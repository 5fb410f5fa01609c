"""The one table of statuses: the HTTP status and the gRPC code of every error in the tree.

No other module maps an error to an HTTP or gRPC status. An error without a row has the row of its nearest ancestor.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

from grpc import StatusCode

from wavserve.core import errors


@dataclass(frozen=True, slots=True)
class ErrorStatus:
    """One row: HTTP status, gRPC code, and the title of the problem document."""

    http: int
    grpc: StatusCode
    title: str


INTERNAL = ErrorStatus(500, StatusCode.INTERNAL, "Internal error")

STATUSES: dict[type[errors.WavserveError], ErrorStatus] = {
    errors.InvalidRequest: ErrorStatus(400, StatusCode.INVALID_ARGUMENT, "Invalid request"),
    errors.UnsupportedMedia: ErrorStatus(415, StatusCode.INVALID_ARGUMENT, "Unsupported media"),
    errors.TooLarge: ErrorStatus(413, StatusCode.RESOURCE_EXHAUSTED, "Too large"),
    errors.UnknownSession: ErrorStatus(404, StatusCode.NOT_FOUND, "Unknown session"),
    errors.UnknownPolicy: ErrorStatus(404, StatusCode.NOT_FOUND, "Unknown policy"),
    errors.SequenceConflict: ErrorStatus(409, StatusCode.FAILED_PRECONDITION, "Sequence conflict"),
    errors.StaleEpoch: ErrorStatus(409, StatusCode.ABORTED, "Stale epoch"),
    errors.ContractMismatch: ErrorStatus(409, StatusCode.FAILED_PRECONDITION, "Contract mismatch"),
    errors.RobotBusy: ErrorStatus(409, StatusCode.ALREADY_EXISTS, "Robot busy"),
    errors.Overloaded: ErrorStatus(429, StatusCode.RESOURCE_EXHAUSTED, "Overloaded"),
    errors.DeadlineExceeded: ErrorStatus(504, StatusCode.DEADLINE_EXCEEDED, "Deadline exceeded"),
    errors.NotReady: ErrorStatus(503, StatusCode.UNAVAILABLE, "Not ready"),
    errors.StoreUnavailable: ErrorStatus(503, StatusCode.UNAVAILABLE, "Session store unavailable"),
    errors.OutcomeUnknown: ErrorStatus(503, StatusCode.UNAVAILABLE, "Outcome unknown"),
    errors.Cancelled: ErrorStatus(499, StatusCode.CANCELLED, "Cancelled"),
    # of a bad answer of the models; ABORTED: no channel repeats the call by itself, a robot asks with a new observation
    errors.UnsafeChunk: ErrorStatus(502, StatusCode.ABORTED, "Unsafe chunk"),
    errors.Unsupported: ErrorStatus(501, StatusCode.UNIMPLEMENTED, "Unsupported"),
    errors.BackendError: ErrorStatus(503, StatusCode.UNAVAILABLE, "Model call failed"),
}


def status_of(error: BaseException) -> ErrorStatus:
    """The row of the error's class or of its nearest ancestor in the table; INTERNAL when there is none."""
    for ancestor in type(error).__mro__:
        if ancestor in STATUSES:
            return STATUSES[ancestor]
    return INTERNAL


def http_status(code: int) -> ErrorStatus:
    """The row of a status that the HTTP framework sets itself, for an unknown path or method."""
    return ErrorStatus(code, StatusCode.UNKNOWN, HTTPStatus(code).phrase)


def name_of(error: BaseException) -> str:
    """An error's public name, such as `sequence-conflict`; `internal` for an error outside the table.

    A child of a class in the table has its own name, so that clients can tell ArenaFull from BackendError.
    """
    if status_of(error) is INTERNAL or not isinstance(error, errors.WavserveError):
        return "internal"
    return errors.error_name(type(error))
