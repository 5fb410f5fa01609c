"""Converts errors to gRPC's error details (google.rpc.Status), and back to the typed errors of `core/errors.py`.

The gRPC edge packs them and the robot client unpacks them. A client in any language can read them with the public
googleapis protos.
"""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from wavserve.core.errors import (
    DeadlineExceeded,
    InvalidRequest,
    MissedDeadline,
    Overloaded,
    WavserveError,
    error_kinds,
)

DETAILS_KEY = "grpc-status-details-bin"
_DOMAIN = "wavserve"


def pack_details(code: int, message: str, reason: str, facts: Mapping[str, str]) -> bytes:
    """A serialized google.rpc.Status. `reason` is the error's public name; `facts` are its other fields, as texts.

    All facts are sent as ErrorInfo metadata. `field` and `retry_after_s` are also sent in the standard details.
    """
    status = status_pb2.Status(code=code, message=message)
    info = error_details_pb2.ErrorInfo(reason=reason.replace("-", "_").upper(), domain=_DOMAIN, metadata=facts)
    status.details.add().Pack(info)
    if "field" in facts:
        violation = error_details_pb2.BadRequest.FieldViolation(field=facts["field"], description=message)
        status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    if "retry_after_s" in facts:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(round(float(facts["retry_after_s"]) * 1e3))
        status.details.add().Pack(retry)
    packed: bytes = status.SerializeToString()
    return packed


def unpack_error(details: bytes) -> WavserveError | None:
    """The typed error that `pack_details` packed; None when the details are from another source."""
    status, info = status_pb2.Status(), error_details_pb2.ErrorInfo()
    try:
        status.ParseFromString(details)
    except DecodeError:
        return None
    for detail in status.details:
        if detail.Unpack(info) and info.domain == _DOMAIN:
            return _rebuild(info.reason, status.message, dict(info.metadata))
    return None


def _rebuild(reason: str, message: str, facts: Mapping[str, str]) -> WavserveError:
    cls = error_kinds().get(reason.lower().replace("_", "-"), WavserveError)
    if issubclass(cls, InvalidRequest):
        return cls(facts.get("field", ""), facts.get("expected", ""), facts.get("actual", ""))
    if issubclass(cls, Overloaded):
        predicted = float(facts["predicted_s"]) if "predicted_s" in facts else None
        return cls(message, float(facts.get("retry_after_s", 1.0)), predicted)
    if issubclass(cls, DeadlineExceeded):
        return cls(message, _missed(facts))
    return cls(f"{message} ({facts.get('error_id', 'no id')})" if cls is WavserveError else message)


def _missed(facts: Mapping[str, str]) -> MissedDeadline | None:
    if "slack_ms" not in facts:
        return None
    counts = (int(facts[name]) for name in ("iterations_done", "num_video_samples", "num_value_samples"))
    return MissedDeadline(float(facts["slack_ms"]), *counts)
