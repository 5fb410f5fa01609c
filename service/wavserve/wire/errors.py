"""Converts errors to gRPC's error details (google.rpc.Status), and back to the typed errors of `core/errors.py`.

The gRPC edge packs them and the robot client unpacks them. A client in any language can read them with the public
googleapis protos. They travel as trailing metadata, of which gRPC takes 8 KiB by default, so their texts are bounded.
"""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from wavserve.core.errors import WavserveError
from wavserve.core.remote_errors import cut, rebuild_served

DETAILS_KEY = "grpc-status-details-bin"
_DOMAIN = "wavserve"
# Together less than 8 KiB: the message travels percent-encoded (up to 3 bytes for one) and again in the details, whose
# bytes travel as base64 (4 bytes for 3).
_MAX_MESSAGE_BYTES = 800
_MAX_FACT_BYTES = 300
_MAX_FACTS_BYTES = 1_600


def status_text(message: str) -> str:
    """An error's message as a gRPC status may carry it: valid UTF-8 of bounded length."""
    return cut(message, _MAX_MESSAGE_BYTES)


def pack_details(code: int, message: str, reason: str, facts: Mapping[str, str]) -> bytes:
    """A serialized google.rpc.Status. `reason` is the error's public name; `facts` are its other fields, as texts.

    Facts are sent as ErrorInfo metadata, as many as have room, the first ones first. `field` and `retry_after_s` are
    also sent in the standard details. Long texts are cut between two characters.
    """
    message, facts = status_text(message), _bounded(facts)
    status = status_pb2.Status(code=code, message=message)
    info = error_details_pb2.ErrorInfo(reason=reason.replace("-", "_").upper(), domain=_DOMAIN, metadata=facts)
    status.details.add().Pack(info)
    if "field" in facts:
        description = cut(message, _MAX_FACT_BYTES)
        violation = error_details_pb2.BadRequest.FieldViolation(field=facts["field"], description=description)
        status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    if "retry_after_s" in facts:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(round(float(facts["retry_after_s"]) * 1e3))
        status.details.add().Pack(retry)
    packed: bytes = status.SerializeToString()
    return packed


def unpack_error(details: bytes) -> WavserveError | None:
    """The typed error that `pack_details` packed; None when the details are from another source.

    A name that this version does not know gives a WavserveError with the server's word on `retryable`.
    """
    status, info = status_pb2.Status(), error_details_pb2.ErrorInfo()
    try:
        status.ParseFromString(details)
        is_ours = any(detail.Unpack(info) and info.domain == _DOMAIN for detail in status.details)
    except DecodeError:
        return None
    if not is_ours:
        return None
    facts, name = dict(info.metadata), info.reason.lower().replace("_", "-")
    return rebuild_served(name, status.message, facts, facts.get("error_id"), facts.get("retryable") == "true")


def _bounded(facts: Mapping[str, str]) -> dict[str, str]:
    """The facts, each cut to its limit, as long as all have room."""
    bounded, room = {}, _MAX_FACTS_BYTES
    for name, fact in facts.items():
        text = cut(fact, _MAX_FACT_BYTES)
        room -= len(name.encode()) + len(text.encode())
        if room >= 0:
            bounded[name] = text
    return bounded
