"""The parts that all clients share: the calls of the contract, how long they may take, and typed errors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from wavserve.core import errors
from wavserve.core.messages import DEADLINE_KEY, ActionChunk, Observation, PolicyInfo
from wavserve.core.tracing import TRACE_KEY
from wavserve.pb import wavserve_pb2 as pb
from wavserve.wire import answers, parts, requests
from wavserve.wire.errors import DETAILS_KEY, unpack_error

Answer = TypeVar("Answer")
Read = TypeVar("Read", bound=Message)

MAX_MESSAGE_BYTES = 32 * 1024 * 1024
GRACE_S = 0.5
"""How much longer than its deadline a plan's call waits: the server's own error says more than a timeout."""
RESET_TIMEOUT_S = 10.0
POLICY_TIMEOUT_S = 10.0

_SERVICE = "wavserve.v1.PlanService"
# gRPC reports these codes itself when the server does not answer
_TRANSPORT: Mapping[grpc.StatusCode, type[errors.WavserveError]] = {
    grpc.StatusCode.UNAVAILABLE: errors.NotReady,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineExceeded,
    grpc.StatusCode.CANCELLED: errors.Cancelled,
    grpc.StatusCode.UNIMPLEMENTED: errors.Unsupported,
}
_NOT_CONNECTED = ("failed to connect to all addresses", "errors resolving ", "DNS resolution failed")
"""How gRPC's messages begin when there is no connection, so that nothing was sent.

The first one goes on with several causes, of which the last one is it.
"""
_ENDED = "Internal error from Core"
"""What gRPC says of a write that met the end of its stream, instead of the stream's status (grpc issue 36066)."""
_TOO_LARGE = "larger than max"
"""Part of gRPC's message when it refuses a message of ours, or one of the server's."""


@dataclass(frozen=True, slots=True)
class Call(Generic[Answer]):
    """One unary call: the bytes of the request, and a function that reads the answer."""

    method: str
    """full gRPC path"""
    request: bytes
    read: Callable[[bytes], Answer]
    deadline_ms: int | None = None
    """of a plan, from its receipt; also sent as metadata, so that the server can refuse before it reads the body"""
    timeout_s: float | None = None
    """how long the call may take unless the caller says otherwise; None: until the link is found dead"""
    traceparent: str = ""
    """of the span that the call is a part of; empty: none"""

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return tuple(said_beside(self.deadline_ms, self.traceparent).items())


def said_beside(deadline_ms: int | None, traceparent: str) -> dict[str, str]:
    """What a call says beside its body: over HTTP as headers, over gRPC as metadata."""
    said = {DEADLINE_KEY: None if deadline_ms is None else str(deadline_ms), TRACE_KEY: traceparent}
    return {name: text for name, text in said.items() if text}


def plan_call(observation: Observation) -> Call[ActionChunk]:
    """`Plan`. Raises InvalidRequest or UnsupportedMedia for values that the contract does not have."""
    message = requests.plan_request(observation)
    has_deadline = message.HasField("deadline_ms")
    return Call(
        method_path("Plan"),
        message.SerializeToString(),
        lambda raw: answers.chunk_from(read_message(pb.ActionChunk(), raw)),
        deadline_ms=message.deadline_ms if has_deadline else None,
        timeout_s=message.deadline_ms / 1e3 + GRACE_S if has_deadline else None,
    )


def reset_call(session_id: str) -> Call[None]:
    """`Reset`. Raises InvalidRequest."""
    request = pb.ResetRequest()
    parts.assign(request, "session_id", session_id)
    return Call(method_path("Reset"), request.SerializeToString(), lambda raw: None, timeout_s=RESET_TIMEOUT_S)


def end_call(session_id: str) -> Call[None]:
    """`Reset` of a session that ends. Raises InvalidRequest."""
    request = pb.ResetRequest(end=True)
    parts.assign(request, "session_id", session_id)
    return Call(method_path("Reset"), request.SerializeToString(), lambda raw: None, timeout_s=RESET_TIMEOUT_S)


def policy_call(name: str | None) -> Call[PolicyInfo]:
    """`GetPolicy`. None: the served policy. Raises InvalidRequest."""
    request = pb.GetPolicyRequest()
    if name is not None:
        parts.assign(request, "policy", name)
    return Call(
        method_path("GetPolicy"),
        request.SerializeToString(),
        lambda raw: answers.policy_from(read_message(pb.PolicyInfo(), raw)),
        timeout_s=POLICY_TIMEOUT_S,
    )


def read_message(message: Read, raw: bytes) -> Read:
    """Parses a server's message. Fields of a newer contract are ignored. Raises InvalidAnswer."""
    try:
        message.ParseFromString(raw)
    except DecodeError:
        name = message.DESCRIPTOR.full_name
        raise errors.InvalidAnswer(f"answer: expected a {name}, got {len(raw)} bytes that do not parse") from None
    return message


def typed_error(
    target: str, code: grpc.StatusCode, details: str | None, trailing: Iterable[tuple[str, str | bytes]]
) -> errors.WavserveError:
    """The error in the server's trailing metadata; without one, the error for gRPC's own status code.

    gRPC's text says what is wrong with an address: its name does not resolve, its port refuses, no gRPC server answers.
    """
    for key, value in trailing:
        if key == DETAILS_KEY and isinstance(value, bytes) and (error := unpack_error(value)) is not None:
            return error
    text = f"{target}: {_cause(code, details or '')}"
    if code is grpc.StatusCode.UNAVAILABLE and (details or "").startswith(_NOT_CONNECTED):
        return errors.Unreachable(text)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and _TOO_LARGE in text:
        return errors.TooLarge("body", "a message within the limit", str(details))
    if code is grpc.StatusCode.INTERNAL and details == _ENDED:
        return errors.NotReady(f"{target}: the stream ended")
    return _TRANSPORT.get(code, errors.WavserveError)(text)


def _cause(code: grpc.StatusCode, details: str) -> str:
    if code is grpc.StatusCode.UNAVAILABLE and details.startswith(_NOT_CONNECTED[0]):
        return f"no service answers: {details.rpartition(': ')[2]}"
    return f"{code.name}: {details}"


def method_path(method: str) -> str:
    """The full gRPC path of a method."""
    return f"/{_SERVICE}/{method}"
