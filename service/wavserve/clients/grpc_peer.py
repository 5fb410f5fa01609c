"""A server over gRPC: one channel that is replaced while nobody answers, blocking or awaited. Knows no call by name."""

from __future__ import annotations

import asyncio
from typing import TypeVar

import grpc
import grpc.aio

from wavserve.clients.calls import Call, typed_error
from wavserve.clients.channels import Link, channel_options
from wavserve.core.errors import WavserveError

Answer = TypeVar("Answer")


class GrpcPeer:
    """The connection to one server, for any number of threads."""

    def __init__(self, target: str, max_bytes: int, proxy: bool) -> None:
        """Connects with the first call. Raises InvalidRequest for a target that is no `host:port`."""
        options = channel_options(target, max_bytes, proxy)
        self._target = target
        self._link = Link(target, lambda: grpc.insecure_channel(target, options=options))

    def call(self, call: Call[Answer], timeout_s: float | None) -> Answer:
        """One call. Raises the server's error, NotReady, DeadlineExceeded, InvalidAnswer and ClientClosed."""
        channel = self._link.channel()
        timeout = call.timeout_s if timeout_s is None else timeout_s
        try:
            invoke: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(call.method)
            raw = invoke(call.request, timeout=timeout, metadata=call.metadata)
        except grpc.RpcError as error:
            self._link.check_open()
            typed = self._typed(error)
            self._link.failed(channel, typed)
            raise typed from None
        except ValueError:  # gRPC's own for a channel that another thread closed just now
            self._link.check_open()
            raise
        return call.read(raw)

    def close(self) -> None:
        """Ends the calls under way, and refuses later ones, with ClientClosed."""
        for channel in self._link.close():
            channel.close()

    def _typed(self, error: grpc.RpcError) -> WavserveError:
        assert isinstance(error, grpc.Call)  # gRPC's blocking API raises an object that is also the call
        return typed_error(self._target, error.code(), error.details(), error.trailing_metadata() or ())


class AsyncGrpcPeer:
    """The same for an event loop. Make it inside a running one."""

    def __init__(self, target: str, max_bytes: int, proxy: bool) -> None:
        """As `GrpcPeer`."""
        options = channel_options(target, max_bytes, proxy)
        self._target = target
        self._link = Link(target, lambda: grpc.aio.insecure_channel(target, options=options))

    async def call(self, call: Call[Answer], timeout_s: float | None) -> Answer:
        """As `GrpcPeer.call`."""
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

    async def close(self) -> None:
        """As `GrpcPeer.close`."""
        for channel in self._link.close():
            await channel.close()
