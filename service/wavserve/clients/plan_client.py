"""A small synchronous robot client over gRPC: encoded pictures and a state in, a chunk of actions out.

Used by `wavserve plan` and by robots' own programs; `async_client` is the same for an event loop. Needs only the base
install: no torch, no server code. Failures come back as the typed errors of `errors.py`, with field, expected and
actual as the server told them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Self, TypeVar

import grpc

from wavserve.core import errors
from wavserve.core.messages import DEADLINE_KEY, Chunk, PolicyInfo, Submission
from wavserve.pb import wavserve_pb2 as pb
from wavserve.wire import answers, requests
from wavserve.wire.errors import DETAILS_KEY, unpack_error

Request = TypeVar("Request", pb.PlanRequest, pb.ResetRequest, pb.GetPolicyRequest)
Answer = TypeVar("Answer", pb.ActionChunk, pb.ResetResponse, pb.PolicyInfo)

_SERVICE = "wavserve.v1.PlanService"
# What gRPC itself reports, when the server had no say.
_TRANSPORT: Mapping[grpc.StatusCode, type[errors.WavserveError]] = {
    grpc.StatusCode.UNAVAILABLE: errors.NotReady,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineExceeded,
    grpc.StatusCode.CANCELLED: errors.Cancelled,
    grpc.StatusCode.UNIMPLEMENTED: errors.Unsupported,
}


def channel_options(max_message_bytes: int) -> list[tuple[str, int]]:
    """How a robot's channel is set up."""
    return [
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
        # The server allows a ping every 5 s; a dead link shows within 15 s.
        ("grpc.keepalive_time_ms", 10_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.keepalive_permit_without_calls", 1),
    ]


def typed_error(
    code: grpc.StatusCode, told_by_grpc: str, trailing: Iterable[tuple[str, str | bytes]]
) -> errors.WavserveError:
    """A failed call as the server told it in its trailing metadata; else as gRPC did."""
    for key, value in trailing:
        if key == DETAILS_KEY and isinstance(value, bytes):
            told = unpack_error(value)
            if told is not None:
                return told
    return _TRANSPORT.get(code, errors.WavserveError)(told_by_grpc)


class PlanClient:
    """One connection to a server (`host:port`, no TLS); use it as a context manager, from any number of threads."""

    def __init__(self, target: str, max_message_bytes: int = 32 * 1024 * 1024) -> None:
        self._target = target
        self._channel = grpc.insecure_channel(target, options=channel_options(max_message_bytes))

    def plan(self, submission: Submission, timeout_s: float | None = None) -> Chunk:
        """Plans. `timeout_s` bounds the call itself (None: only the request's deadline, if any, does).

        Raises whatever the server refused it with, DeadlineExceeded past the timeout, NotReady when nobody answers.
        """
        told = () if submission.deadline_ms is None else ((DEADLINE_KEY, str(submission.deadline_ms)),)
        return answers.chunk_from(
            self._call("Plan", requests.plan_request(submission), pb.ActionChunk, timeout_s, told)
        )

    def reset(self, session_id: str, timeout_s: float | None = 10.0) -> None:
        """Makes the server forget a session's frame memory. Raises UnknownSession."""
        self._call("Reset", pb.ResetRequest(session_id=session_id), pb.ResetResponse, timeout_s)

    def policy(self, name: str | None = None, timeout_s: float | None = 10.0) -> PolicyInfo:
        """What the server plans for. Raises UnknownPolicy when it is not the named one."""
        message = self._call("GetPolicy", pb.GetPolicyRequest(policy=name or ""), pb.PolicyInfo, timeout_s)
        return answers.policy_from(message)

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _call(
        self,
        method: str,
        request: Request,
        answer: type[Answer],
        timeout_s: float | None,
        metadata: tuple[tuple[str, str], ...] = (),
    ) -> Answer:
        parse: Callable[[bytes], Answer] = answer.FromString
        call = self._channel.unary_unary(
            f"/{_SERVICE}/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=parse,
        )
        try:
            return call(request, timeout=timeout_s, metadata=metadata)
        except grpc.RpcError as error:
            raise self._typed(error) from None

    def _typed(self, error: grpc.RpcError) -> errors.WavserveError:
        assert isinstance(error, grpc.Call)  # what the blocking API raises is always the call itself
        told_by_grpc = f"{self._target}: {error.code().name}: {error.details()}"
        return typed_error(error.code(), told_by_grpc, error.trailing_metadata() or ())
