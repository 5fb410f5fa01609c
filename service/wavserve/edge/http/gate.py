"""The outermost layer of the HTTP app: notes the arrival time, limits the body, turns every failure into a problem.

It is plain ASGI around the routes, so that no failure bypasses it. It counts and times requests under /v1/ and those of
the authors' API. HEAD is answered like GET; the server leaves out the body. An answer before the end of the request's
body closes the connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from time import monotonic_ns
from typing import Any

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wavserve.core.errors import InvalidRequest, TooLarge
from wavserve.edge.http.answers import problem_response
from wavserve.edge.report import ErrorReport, internal, report
from wavserve.system.telemetry import Metrics

_CLOSE = (b"connection", b"close")
_COUNTED = ("/v1/", "/predict", "/reset")


class HttpGate:
    """Wraps an ASGI app. `request.state.received_ns` is the arrival time (monotonic, ns), and `is_head` tells HEAD."""

    def __init__(self, app: ASGIApp, max_body_bytes: int, metrics: Metrics) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state["received_ns"], state["is_head"] = monotonic_ns(), scope["method"] == "HEAD"
        body = _Body(scope["headers"], receive, self._max_body_bytes)
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            started = True
            if message["type"] == "http.response.start" and not body.complete:
                message["headers"] = [*message["headers"], _CLOSE]
            await send(message)

        inner = {**scope, "method": "GET"} if state["is_head"] else scope
        try:
            state["outcome"] = "ok"  # the app's own handlers may change it
            body.check_stated_length()
            await self._app(inner, body.receive, sending)
        except asyncio.CancelledError:
            state["outcome"] = "cancelled"
            raise
        except Exception as error:
            problem, response = _answer(error)
            state["outcome"] = problem.name
            if started:  # the status has been sent, so no problem can be sent any more
                raise
            await response(scope, body.receive, sending)
        finally:
            self._observe(scope, state)

    def _observe(self, scope: Scope, state: dict[str, Any]) -> None:
        if scope["path"].startswith(_COUNTED):
            seconds = (monotonic_ns() - state["received_ns"]) / 1e9
            self._metrics.observe_request("http", state["outcome"], seconds)


class _Body:
    """A request's body: counts its bytes, and knows whether the app has read it to its end.

    A body may be sent in pieces without a stated length.
    """

    def __init__(self, headers: Iterable[tuple[bytes, bytes]], receive: Receive, max_bytes: int) -> None:
        named = dict(headers)
        self._stated = named.get(b"content-length", b"0")
        self._receive = receive
        self._max_bytes = max_bytes
        self._num_bytes = 0
        in_chunks = b"transfer-encoding" in named
        self.complete = self._stated == b"0" and not in_chunks
        self._has_two_lengths = in_chunks and b"content-length" in named

    def check_stated_length(self) -> None:
        """Raises InvalidRequest or TooLarge for the length that the headers state.

        A proxy that reads the other one of two lengths would see another request behind this one.
        """
        if self._has_two_lengths:
            raise InvalidRequest("content-length", "no such header beside transfer-encoding", "both")
        if not self._stated.isdigit():
            raise InvalidRequest("content-length", "a number of bytes", repr(self._stated[:20]))
        if int(self._stated) > self._max_bytes:
            raise self._too_large(f"{int(self._stated)} bytes")

    async def receive(self) -> Message:
        message = await self._receive()
        self._num_bytes += len(message.get("body", b""))
        if self._num_bytes > self._max_bytes:
            raise self._too_large("more")
        self.complete = self.complete or (message["type"] == "http.request" and not message.get("more_body", False))
        return message

    def _too_large(self, actual: str) -> TooLarge:
        return TooLarge("body", f"at most {self._max_bytes} bytes", actual)


def _answer(error: Exception) -> tuple[ErrorReport, Response]:
    """A failure's report and problem document. A failure to make them is reported as an internal error."""
    try:
        problem = report(error, "http")
        return problem, problem_response(problem)
    except Exception as second:  # noqa: BLE001  # every failure gets an answer; the log has the traceback
        problem = internal(second, "http")
        return problem, problem_response(problem)
