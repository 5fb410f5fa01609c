"""The robot client for an event loop: the calls of `plan_client`, awaited, for programs that drive several robots."""

from __future__ import annotations

import secrets
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from wavserve.clients import calls, http_calls
from wavserve.clients.calls import MAX_MESSAGE_BYTES
from wavserve.clients.gateways import Targets
from wavserve.clients.peers import open_async_peers
from wavserve.core.address import is_url
from wavserve.core.messages import ActionChunk, Observation, PolicyInfo
from wavserve.core.tracing import Tracer, within


class AsyncPlanClient:
    """A server or several, as for `PlanClient`. Make it inside a running loop. An async context manager.

    It reconnects by itself, within 2 s of the server's return. `proxy`, `tracer`: as in `PlanClient`.
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
        self._peers: Any = open_async_peers(target, robot_id or secrets.token_hex(8), max_message_bytes, proxy)
        self._calls: Any = http_calls if is_url(self.gateway) else calls
        self._tracer = tracer or Tracer()

    @property
    def gateway(self) -> str:
        """The address that the next call asks first."""
        gateway: str = self._peers.route.current
        return gateway

    async def plan(self, observation: Observation, timeout_s: float | None = None) -> ActionChunk:
        """Requests a plan. `timeout_s` limits the call itself; None: the request's deadline and half a second.

        A request without a deadline waits for its answer, and ends within 15 s when the link is dead. Raises the
        server's error, DeadlineExceeded after the timeout, NotReady when no server answers, InvalidAnswer for an answer
        of another contract, and ClientClosed once the client is closed, also by another task during the call.
        """
        with within(self._tracer.begin("robot.plan", attributes={"wavserve.sequence": observation.sequence})) as span:
            call = replace(self._calls.plan_call(observation), traceparent=span.traceparent)
            chunk: ActionChunk = await self._peers.call(call, timeout_s)
            span.set({"wavserve.chunk": chunk.chunk_id})
        return chunk

    async def reset(self, session_id: str, timeout_s: float | None = None) -> None:
        """Makes the server forget a session's frame memory. `timeout_s` None: 10 s. Raises UnknownSession."""
        await self._peers.call(self._calls.reset_call(session_id), timeout_s)

    async def end(self, session_id: str, timeout_s: float | None = None) -> None:
        """Gives a session's place back. `timeout_s` None: 10 s. An unknown session has ended."""
        await self._peers.call(self._calls.end_call(session_id), timeout_s)

    async def policy(self, name: str | None = None, timeout_s: float | None = None) -> PolicyInfo:
        """The served policy's facts. `timeout_s` None: 10 s.

        Raises UnknownPolicy when the server has another policy than `name`.
        """
        policy: PolicyInfo = await self._peers.call(self._calls.policy_call(name), timeout_s)
        return policy

    async def close(self) -> None:
        """Ends the calls under way, and refuses later ones, with ClientClosed."""
        await self._peers.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()
