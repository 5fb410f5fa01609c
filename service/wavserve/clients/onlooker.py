"""Follows the robots that are connected to a server (`Watch`). It moves nothing and knows no terminal."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Self

import grpc

from wavserve.clients.calls import MAX_MESSAGE_BYTES, method_path, read_message, typed_error
from wavserve.clients.channels import channel_options
from wavserve.core.control import RobotStatus
from wavserve.core.errors import InvalidRequest, WavserveError
from wavserve.pb import wavserve_pb2 as pb
from wavserve.wire.control_answers import watch_update_from


class Onlooker:
    """One connection to a server (`host:port`, no TLS). A context manager."""

    def __init__(self, target: str, *, proxy: bool = False) -> None:
        """Connects with the first look. Raises InvalidRequest for a target that is no `host:port`."""
        options = channel_options(target, MAX_MESSAGE_BYTES, proxy)
        self._target = target
        self._channel = grpc.insecure_channel(target, options=options)

    def watch(self, interval_s: float, timeout_s: float | None = None) -> Iterator[list[RobotStatus]]:
        """All robots, now and after each interval, until the server stops. `timeout_s`: of the whole call.

        Raises the server's error, NotReady when no server answers, and InvalidAnswer.
        """
        try:
            request = pb.WatchRequest(interval_s=interval_s).SerializeToString()
        except (TypeError, ValueError):
            raise InvalidRequest("interval_s", "a number of seconds", interval_s) from None
        invoke: grpc.UnaryStreamMultiCallable[bytes, bytes] = self._channel.unary_stream(method_path("Watch"))
        call = invoke(request, timeout=timeout_s)
        try:
            for raw in call:
                yield watch_update_from(read_message(pb.WatchUpdate(), raw))
        except grpc.RpcError as error:
            raise self._typed(error) from None
        finally:
            call.cancel()

    def close(self) -> None:
        """Ends every look."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _typed(self, error: grpc.RpcError) -> WavserveError:
        assert isinstance(error, grpc.Call)  # gRPC's blocking API raises an object that is also the call
        return typed_error(self._target, error.code(), error.details(), error.trailing_metadata() or ())
