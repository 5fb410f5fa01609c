"""A small synchronous robot client over gRPC or HTTP: encoded images and a state in, a chunk of actions out.

`async_client` is the same client for an event loop. It needs only the base install: no torch, no server code. Failures
are the typed errors of `core/errors.py`, with field, expected and actual as the server sent them.
"""

from __future__ import annotations

import secrets
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from wavserve.clients import calls, http_calls
from wavserve.clients.calls import MAX_MESSAGE_BYTES
from wavserve.clients.gateways import Targets
from wavserve.clients.peers import open_peers
from wavserve.core.address import is_url
from wavserve.core.messages import ActionChunk, Observation, PolicyInfo
from wavserve.core.tracing import Tracer, within


class PlanClient:
    """A server: `host:port` for gRPC without TLS, or `http://host:port`. A context manager; any thread may use it.

    Several gateways of one policy are one text with commas, or a sequence: a call that one of them does not serve goes
    to the next. It reconnects by itself, within 2 s of the server's return. `proxy`: connect through the HTTP proxy
    that the environment names, except to this machine itself; by default the environment's proxies are ignored.
    `tracer` begins the span of each plan, which the server's spans join.
    """

    def __init__(
        self,
        target: Targets,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        *,
        proxy: bool = False,
        robot_id: str | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        """Connects with the first call. Raises InvalidRequest for a target that is neither.

        `robot_id`: says which of several gateways is the preferred one; None: drawn.
        """
        self._peers: Any = open_peers(target, robot_id or secrets.token_hex(8), max_message_bytes, proxy)
        self._calls: Any = http_calls if is_url(self.gateway) else calls
        self._tracer = tracer or Tracer()

    @property
    def gateway(self) -> str:
        """The address that the next call asks first."""
        gateway: str = self._peers.route.current
        return gateway

    def plan(self, observation: Observation, timeout_s: float | None = None) -> ActionChunk:
        """Requests a plan. `timeout_s` limits the call itself; None: the request's deadline and half a second.

        A request without a deadline waits for its answer, and ends within 15 s when the link is dead. Raises the
        server's error, DeadlineExceeded after the timeout, NotReady when no server answers, InvalidAnswer for an answer
        of another contract, and ClientClosed once the client is closed, also by another thread during the call.
        """
        with within(self._tracer.begin("robot.plan", attributes={"wavserve.sequence": observation.sequence})) as span:
            call = replace(self._calls.plan_call(observation), traceparent=span.traceparent)
            chunk: ActionChunk = self._peers.call(call, timeout_s)
            span.set({"wavserve.chunk": chunk.chunk_id})
        return chunk

    def reset(self, session_id: str, timeout_s: float | None = None) -> None:
        """Makes the server forget a session's frame memory. `timeout_s` None: 10 s. Raises UnknownSession."""
        self._peers.call(self._calls.reset_call(session_id), timeout_s)

    def end(self, session_id: str, timeout_s: float | None = None) -> None:
        """Gives a session's place back. `timeout_s` None: 10 s. An unknown session has ended."""
        self._peers.call(self._calls.end_call(session_id), timeout_s)

    def policy(self, name: str | None = None, timeout_s: float | None = None) -> PolicyInfo:
        """The served policy's facts. `timeout_s` None: 10 s.

        Raises UnknownPolicy when the server has another policy than `name`.
        """
        policy: PolicyInfo = self._peers.call(self._calls.policy_call(name), timeout_s)
        return policy

    def close(self) -> None:
        """Ends the calls under way, and refuses later ones, with ClientClosed."""
        self._peers.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
