"""One control stream over gRPC: messages in and out, and typed errors. Knows neither what is said nor when."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

import grpc
import grpc.aio

from wavserve.clients.calls import method_path, policy_call, read_message, typed_error
from wavserve.core.control import ServerMessage
from wavserve.core.errors import Cancelled, DeadlineExceeded, NotReady, WavserveError
from wavserve.core.messages import PolicyInfo
from wavserve.pb import wavserve_pb2 as pb
from wavserve.wire.control_answers import server_message_from

Answer = TypeVar("Answer")


class RobotStream:
    """A call of `Control`. Each method raises the typed error that ended the stream, or DeadlineExceeded."""

    def __init__(self, target: str, channel: grpc.aio.Channel) -> None:
        self._target = target
        self._call: grpc.aio.StreamStreamCall[bytes, bytes] = channel.stream_stream(method_path("Control"))()

    async def write(self, message: bytes, timeout_s: float | None = None) -> None:
        """Returns when gRPC has taken the message."""
        await _result(self._target, self._call.write(message), self._call, timeout_s)

    async def read(self, timeout_s: float | None = None) -> ServerMessage | None:
        """The next message; None: one of a kind that this version does not know. Raises NotReady at the end."""
        raw = await _result(self._target, self._call.read(), self._call, timeout_s)
        if not isinstance(raw, bytes):  # EOF
            raise await _ending(self._target, self._call)
        return server_message_from(read_message(pb.ServerMessage(), raw))

    async def done_writing(self) -> None:
        """Tells the server that no message follows."""
        await self._call.done_writing()

    def cancel(self) -> None:
        """Ends the stream at once."""
        self._call.cancel()


async def ask_policy(target: str, channel: grpc.aio.Channel, timeout_s: float) -> PolicyInfo:
    """What `GetPolicy` answers. Raises typed errors."""
    question = policy_call(None)
    invoke: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(question.method)
    call = invoke(question.request, timeout=timeout_s)
    return question.read(await _result(target, call, call, timeout_s))


async def _result(target: str, work: Awaitable[Answer], call: Any, timeout_s: float | None) -> Answer:
    """The result of a part of a call. Raises typed errors."""
    try:
        async with asyncio.timeout(timeout_s):
            return await work
    except TimeoutError:
        raise DeadlineExceeded(f"{target}: no answer within {timeout_s} s") from None
    except grpc.aio.AioRpcError as error:
        trailing = tuple(error.trailing_metadata())
        raise typed_error(target, error.code(), error.details(), trailing) from None
    except (grpc.aio.UsageError, asyncio.InvalidStateError):  # the stream ended before the write
        raise await _ending(target, call) from None
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise Cancelled(f"{target}: the stream was cancelled") from None


async def _ending(target: str, call: Any) -> WavserveError:
    """Why a call ended."""
    code = await call.code()
    if code is grpc.StatusCode.OK:
        return NotReady(f"{target}: the server ended the stream")
    return typed_error(target, code, await call.details(), tuple(await call.trailing_metadata() or ()))
