"""The parts that both clients share: the calls of the contract, the channel's options, and typed errors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import grpc

from wavserve.core import errors
from wavserve.core.messages import DEADLINE_KEY, ActionChunk, Observation, PolicyInfo
from wavserve.pb import wavserve_pb2 as pb
from wavserve.wire import answers, requests
from wavserve.wire.errors import DETAILS_KEY, unpack_error

Answer = TypeVar("Answer")

MAX_MESSAGE_BYTES = 32 * 1024 * 1024
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


@dataclass(frozen=True, slots=True)
class Call(Generic[Answer]):
    """One unary call: the bytes of the request, and a function that reads the answer."""

    method: str
    """full gRPC path"""
    request: bytes
    read: Callable[[bytes], Answer]
    metadata: tuple[tuple[str, str], ...] = ()


def plan_call(observation: Observation) -> Call[ActionChunk]:
    """`Plan`. The deadline is also sent as metadata, so that the server can refuse before it reads the body.

    Raises InvalidRequest or UnsupportedMedia for values that the contract does not have.
    """
    deadline_ms = observation.deadline_ms
    metadata = () if deadline_ms is None else ((DEADLINE_KEY, str(deadline_ms)),)
    request = requests.plan_request(observation).SerializeToString()
    return Call(_path("Plan"), request, lambda raw: answers.chunk_from(pb.ActionChunk.FromString(raw)), metadata)


def reset_call(session_id: str) -> Call[None]:
    """`Reset`."""
    return Call(_path("Reset"), pb.ResetRequest(session_id=session_id).SerializeToString(), lambda raw: None)


def policy_call(name: str | None) -> Call[PolicyInfo]:
    """`GetPolicy`. None: the served policy."""
    request = pb.GetPolicyRequest(policy=name or "").SerializeToString()
    return Call(_path("GetPolicy"), request, lambda raw: answers.policy_from(pb.PolicyInfo.FromString(raw)))


def channel_options(max_message_bytes: int) -> list[tuple[str, int]]:
    """Options of a robot's channel."""
    return [
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
        # A ping every 10 s, with 5 s for its answer: the client detects a dead link within 15 s. The server closes no
        # connection because of pings.
        ("grpc.keepalive_time_ms", 10_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.keepalive_permit_without_calls", 1),
    ]


def typed_error(
    target: str, code: grpc.StatusCode, details: str | None, trailing: Iterable[tuple[str, str | bytes]]
) -> errors.WavserveError:
    """The error in the server's trailing metadata; without one, the error for gRPC's own status code."""
    for key, value in trailing:
        if key == DETAILS_KEY and isinstance(value, bytes) and (error := unpack_error(value)) is not None:
            return error
    return _TRANSPORT.get(code, errors.WavserveError)(f"{target}: {code.name}: {details}")


def _path(method: str) -> str:
    return f"/{_SERVICE}/{method}"
