"""The one table of statuses: what each error of the tree is called on HTTP and on gRPC.

Used by both edges; no other module names a status code. An error is looked up along its class's ancestors.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

from grpc import StatusCode

from wavserve.core import errors


@dataclass(frozen=True, slots=True)
class Status:
    """One row: HTTP status, gRPC code and the title a problem document carries."""

    http: int
    grpc: StatusCode
    title: str


INTERNAL = Status(500, StatusCode.INTERNAL, "Internal error")

STATUSES: dict[type[errors.WavserveError], Status] = {
    errors.InvalidRequest: Status(400, StatusCode.INVALID_ARGUMENT, "Invalid request"),
    errors.UnsupportedMedia: Status(415, StatusCode.INVALID_ARGUMENT, "Unsupported media"),
    errors.TooLarge: Status(413, StatusCode.RESOURCE_EXHAUSTED, "Too large"),
    errors.UnknownSession: Status(404, StatusCode.NOT_FOUND, "Unknown session"),
    errors.UnknownPolicy: Status(404, StatusCode.NOT_FOUND, "Unknown policy"),
    errors.SequenceConflict: Status(409, StatusCode.FAILED_PRECONDITION, "Sequence conflict"),
    errors.Overloaded: Status(429, StatusCode.RESOURCE_EXHAUSTED, "Overloaded"),
    errors.DeadlineExceeded: Status(504, StatusCode.DEADLINE_EXCEEDED, "Deadline exceeded"),
    errors.NotReady: Status(503, StatusCode.UNAVAILABLE, "Not ready"),
    errors.Cancelled: Status(499, StatusCode.CANCELLED, "Cancelled"),
    errors.Unsupported: Status(501, StatusCode.UNIMPLEMENTED, "Unsupported"),
    errors.BackendError: Status(503, StatusCode.UNAVAILABLE, "Model call failed"),
}


def status_of(error: BaseException) -> Status:
    """The row of the nearest ancestor of the error's class; INTERNAL for whatever the table does not know."""
    for ancestor in type(error).__mro__:
        if ancestor in STATUSES:
            return STATUSES[ancestor]
    return INTERNAL


def http_status(code: int) -> Status:
    """A status the HTTP framework answers by itself (no such path, no such method)."""
    return Status(code, StatusCode.UNKNOWN, HTTPStatus(code).phrase)


def name_of(error: BaseException) -> str:
    """An error's public name, `sequence-conflict`; `internal` for whatever is not in the table.

    A child of a known class has its own name: clients may tell ArenaFull from BackendError.
    """
    if status_of(error) is INTERNAL or not isinstance(error, errors.WavserveError):
        return "internal"
    return errors.error_name(type(error))
