"""A small synchronous robot client over gRPC: encoded images and a state in, a chunk of actions out.

`async_client` is the same client for an event loop. It needs only the base install: no torch, no server code. Failures
are the typed errors of `core/errors.py`, with field, expected and actual as the server sent them.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self, TypeVar

import grpc

from wavserve.clients.calls import (
    MAX_MESSAGE_BYTES,
    POLICY_TIMEOUT_S,
    RESET_TIMEOUT_S,
    Call,
    channel_options,
    plan_call,
    policy_call,
    reset_call,
    typed_error,
)
from wavserve.core.errors import WavserveError
from wavserve.core.messages import ActionChunk, Observation, PolicyInfo

Answer = TypeVar("Answer")


class PlanClient:
    """One connection to a server (`host:port`, no TLS). A context manager; any number of threads may use it."""

    def __init__(self, target: str, max_message_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self._target = target
        self._channel = grpc.insecure_channel(target, options=channel_options(max_message_bytes))

    def plan(self, observation: Observation, timeout_s: float | None = None) -> ActionChunk:
        """Requests a plan. `timeout_s` limits the call itself; None: only the request's deadline limits it.

        Raises the server's error, DeadlineExceeded after the timeout, and NotReady when no server answers.
        """
        return self._call(plan_call(observation), timeout_s)

    def reset(self, session_id: str, timeout_s: float | None = RESET_TIMEOUT_S) -> None:
        """Makes the server forget a session's frame memory. Raises UnknownSession."""
        self._call(reset_call(session_id), timeout_s)

    def policy(self, name: str | None = None, timeout_s: float | None = POLICY_TIMEOUT_S) -> PolicyInfo:
        """The served policy's facts. Raises UnknownPolicy when the server has another policy than `name`."""
        return self._call(policy_call(name), timeout_s)

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _call(self, call: Call[Answer], timeout_s: float | None) -> Answer:
        invoke: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(call.method)
        try:
            raw = invoke(call.request, timeout=timeout_s, metadata=call.metadata)
        except grpc.RpcError as error:
            raise self._typed(error) from None
        return call.read(raw)

    def _typed(self, error: grpc.RpcError) -> WavserveError:
        assert isinstance(error, grpc.Call)  # gRPC's blocking API raises an object that is also the call
        return typed_error(self._target, error.code(), error.details(), error.trailing_metadata() or ())
