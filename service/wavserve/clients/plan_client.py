"""A small synchronous robot client over gRPC: encoded images and a state in, a chunk of actions out.

`async_client` is the same client for an event loop. It needs only the base install: no torch, no server code. Failures
are the typed errors of `core/errors.py`, with field, expected and actual as the server sent them.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self, TypeVar

import grpc

from wavserve.clients.calls import MAX_MESSAGE_BYTES, Call, plan_call, policy_call, reset_call, typed_error
from wavserve.clients.channels import Link, channel_options
from wavserve.core.errors import WavserveError
from wavserve.core.messages import ActionChunk, Observation, PolicyInfo

Answer = TypeVar("Answer")


class PlanClient:
    """One connection to a server (`host:port`, no TLS). A context manager; any number of threads may use it.

    It reconnects by itself, within 2 s of the server's return. `proxy`: connect through the HTTP proxy that the
    environment names, except to this machine itself; by default the environment's proxies are ignored.
    """

    def __init__(self, target: str, max_message_bytes: int = MAX_MESSAGE_BYTES, *, proxy: bool = False) -> None:
        """Connects with the first call. Raises InvalidRequest for a target that is no `host:port`."""
        options = channel_options(target, max_message_bytes, proxy)
        self._target = target
        self._link = Link(target, lambda: grpc.insecure_channel(target, options=options))

    def plan(self, observation: Observation, timeout_s: float | None = None) -> ActionChunk:
        """Requests a plan. `timeout_s` limits the call itself; None: the request's deadline and half a second.

        A request without a deadline waits for its answer, and ends within 15 s when the link is dead. Raises the
        server's error, DeadlineExceeded after the timeout, NotReady when no server answers, InvalidAnswer for an answer
        of another contract, and ClientClosed once the client is closed, also by another thread during the call.
        """
        return self._call(plan_call(observation), timeout_s)

    def reset(self, session_id: str, timeout_s: float | None = None) -> None:
        """Makes the server forget a session's frame memory. `timeout_s` None: 10 s. Raises UnknownSession."""
        self._call(reset_call(session_id), timeout_s)

    def policy(self, name: str | None = None, timeout_s: float | None = None) -> PolicyInfo:
        """The served policy's facts. `timeout_s` None: 10 s.

        Raises UnknownPolicy when the server has another policy than `name`.
        """
        return self._call(policy_call(name), timeout_s)

    def close(self) -> None:
        """Ends the calls under way, and refuses later ones, with ClientClosed."""
        for channel in self._link.close():
            channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _call(self, call: Call[Answer], timeout_s: float | None) -> Answer:
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

    def _typed(self, error: grpc.RpcError) -> WavserveError:
        assert isinstance(error, grpc.Call)  # gRPC's blocking API raises an object that is also the call
        return typed_error(self._target, error.code(), error.details(), error.trailing_metadata() or ())
