"""A small synchronous robot client over gRPC or HTTP: encoded images and a state in, a chunk of actions out.

`async_client` is the same client for an event loop. It needs only the base install: no torch, no server code. Failures
are the typed errors of `core/errors.py`, with field, expected and actual as the server sent them.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from wavserve.clients import calls, http_calls
from wavserve.clients.calls import MAX_MESSAGE_BYTES
from wavserve.clients.grpc_peer import GrpcPeer
from wavserve.clients.http_peer import HttpPeer
from wavserve.core.address import is_url
from wavserve.core.messages import ActionChunk, Observation, PolicyInfo


class PlanClient:
    """A server: `host:port` for gRPC without TLS, or `http://host:port`. A context manager; any thread may use it.

    It reconnects by itself, within 2 s of the server's return. `proxy`: connect through the HTTP proxy that the
    environment names, except to this machine itself; by default the environment's proxies are ignored.
    """

    def __init__(self, target: str, max_message_bytes: int = MAX_MESSAGE_BYTES, *, proxy: bool = False) -> None:
        """Connects with the first call. Raises InvalidRequest for a target that is neither."""
        over_http = is_url(target)
        self._peer: Any = (HttpPeer if over_http else GrpcPeer)(target, max_message_bytes, proxy)
        self._calls: Any = http_calls if over_http else calls

    def plan(self, observation: Observation, timeout_s: float | None = None) -> ActionChunk:
        """Requests a plan. `timeout_s` limits the call itself; None: the request's deadline and half a second.

        A request without a deadline waits for its answer, and ends within 15 s when the link is dead. Raises the
        server's error, DeadlineExceeded after the timeout, NotReady when no server answers, InvalidAnswer for an answer
        of another contract, and ClientClosed once the client is closed, also by another thread during the call.
        """
        chunk: ActionChunk = self._peer.call(self._calls.plan_call(observation), timeout_s)
        return chunk

    def reset(self, session_id: str, timeout_s: float | None = None) -> None:
        """Makes the server forget a session's frame memory. `timeout_s` None: 10 s. Raises UnknownSession."""
        self._peer.call(self._calls.reset_call(session_id), timeout_s)

    def end(self, session_id: str, timeout_s: float | None = None) -> None:
        """Gives a session's place back. `timeout_s` None: 10 s. An unknown session has ended."""
        self._peer.call(self._calls.end_call(session_id), timeout_s)

    def policy(self, name: str | None = None, timeout_s: float | None = None) -> PolicyInfo:
        """The served policy's facts. `timeout_s` None: 10 s.

        Raises UnknownPolicy when the server has another policy than `name`.
        """
        policy: PolicyInfo = self._peer.call(self._calls.policy_call(name), timeout_s)
        return policy

    def close(self) -> None:
        """Ends the calls under way, and refuses later ones, with ClientClosed."""
        self._peer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
