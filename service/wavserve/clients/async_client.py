"""The robot client for an event loop: the calls of `plan_client`, awaited, for programs that drive several robots."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self, TypeVar

import grpc
import grpc.aio

from wavserve.clients.calls import MAX_MESSAGE_BYTES, Call, plan_call, policy_call, reset_call, typed_error
from wavserve.clients.channels import Link, channel_options
from wavserve.core.messages import ActionChunk, Observation, PolicyInfo

Answer = TypeVar("Answer")


class AsyncPlanClient:
    """One connection to a server (`host:port`, no TLS). Make it inside a running loop. An async context manager.

    It reconnects by itself, within 2 s of the server's return. `proxy`: as in `PlanClient`.
    """

    def __init__(self, target: str, max_message_bytes: int = MAX_MESSAGE_BYTES, *, proxy: bool = False) -> None:
        """Connects with the first call. Raises InvalidRequest for a target that is no `host:port`."""
        options = channel_options(target, max_message_bytes, proxy)
        self._target = target
        self._link = Link(target, lambda: grpc.aio.insecure_channel(target, options=options))

    async def plan(self, observation: Observation, timeout_s: float | None = None) -> ActionChunk:
        """Requests a plan. `timeout_s` limits the call itself; None: the request's deadline and half a second.

        A request without a deadline waits for its answer, and ends within 15 s when the link is dead. Raises the
        server's error, DeadlineExceeded after the timeout, NotReady when no server answers, InvalidAnswer for an answer
        of another contract, and ClientClosed once the client is closed, also by another task during the call.
        """
        return await self._call(plan_call(observation), timeout_s)

    async def reset(self, session_id: str, timeout_s: float | None = None) -> None:
        """Makes the server forget a session's frame memory. `timeout_s` None: 10 s. Raises UnknownSession."""
        await self._call(reset_call(session_id), timeout_s)

    async def policy(self, name: str | None = None, timeout_s: float | None = None) -> PolicyInfo:
        """The served policy's facts. `timeout_s` None: 10 s.

        Raises UnknownPolicy when the server has another policy than `name`.
        """
        return await self._call(policy_call(name), timeout_s)

    async def close(self) -> None:
        """Ends the calls under way, and refuses later ones, with ClientClosed."""
        for channel in self._link.close():
            await channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    async def _call(self, call: Call[Answer], timeout_s: float | None) -> Answer:
        channel = self._link.channel()
        timeout = call.timeout_s if timeout_s is None else timeout_s
        invoke: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(call.method)
        try:
            raw = await invoke(call.request, timeout=timeout, metadata=call.metadata)
        except grpc.aio.AioRpcError as error:
            typed = typed_error(self._target, error.code(), error.details(), tuple(error.trailing_metadata()))
            self._link.failed(channel, typed)
            raise typed from None
        except (asyncio.CancelledError, grpc.aio.UsageError):  # `close` cancels the calls under way
            task = asyncio.current_task()
            if task is None or not task.cancelling():
                self._link.check_open()
            raise
        return call.read(raw)
