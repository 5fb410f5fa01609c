"""The robot client for an event loop: the calls of `plan_client`, awaited, for programs that drive several robots."""

from __future__ import annotations

from types import TracebackType
from typing import Self, TypeVar

import grpc
import grpc.aio

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
from wavserve.core.messages import ActionChunk, Observation, PolicyInfo

Answer = TypeVar("Answer")


class AsyncPlanClient:
    """One connection to a server (`host:port`, no TLS). Make it inside a running loop. An async context manager."""

    def __init__(self, target: str, max_message_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self._target = target
        # by default gRPC shares one connection among all channels to a target; each robot needs its own
        options = [*channel_options(max_message_bytes), ("grpc.use_local_subchannel_pool", 1)]
        self._channel = grpc.aio.insecure_channel(target, options=options)

    async def plan(self, observation: Observation, timeout_s: float | None = None) -> ActionChunk:
        """Requests a plan. `timeout_s` limits the call itself; None: only the request's deadline limits it.

        Raises the server's error, DeadlineExceeded after the timeout, and NotReady when no server answers.
        """
        return await self._call(plan_call(observation), timeout_s)

    async def reset(self, session_id: str, timeout_s: float | None = RESET_TIMEOUT_S) -> None:
        """Makes the server forget a session's frame memory. Raises UnknownSession."""
        await self._call(reset_call(session_id), timeout_s)

    async def policy(self, name: str | None = None, timeout_s: float | None = POLICY_TIMEOUT_S) -> PolicyInfo:
        """The served policy's facts. Raises UnknownPolicy when the server has another policy than `name`."""
        return await self._call(policy_call(name), timeout_s)

    async def close(self) -> None:
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    async def _call(self, call: Call[Answer], timeout_s: float | None) -> Answer:
        invoke: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(call.method)
        try:
            raw = await invoke(call.request, timeout=timeout_s, metadata=call.metadata)
        except grpc.aio.AioRpcError as error:
            raise typed_error(self._target, error.code(), error.details(), tuple(error.trailing_metadata())) from None
        return call.read(raw)
