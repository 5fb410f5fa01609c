"""The outermost layer of the HTTP app: notes the arrival time, limits the body, turns every failure into a problem.

It is plain ASGI around the routes, so that no failure bypasses it. It counts and times the requests under /v1/.
"""

from __future__ import annotations

import asyncio
from time import monotonic_ns
from typing import Any

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wavserve.core.errors import InvalidRequest, TooLarge
from wavserve.edge.http.answers import problem_response
from wavserve.edge.report import ErrorReport, internal, report
from wavserve.system.telemetry import Metrics


class HttpGate:
    """Wraps an ASGI app. `request.state.received_ns` is the arrival time (monotonic, ns)."""

    def __init__(self, app: ASGIApp, max_body_bytes: int, metrics: Metrics) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state["received_ns"] = monotonic_ns()
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            state["outcome"] = "ok"  # the app's own handlers may change it
            self._check_stated_length(scope)
            await self._app(scope, self._limited(receive), sending)
        except asyncio.CancelledError:
            state["outcome"] = "cancelled"
            raise
        except Exception as error:
            problem, response = _answer(error)
            state["outcome"] = problem.name
            if started:  # the status has been sent, so no problem can be sent any more
                raise
            await response(scope, receive, send)
        finally:
            self._observe(scope, state)

    def _check_stated_length(self, scope: Scope) -> None:
        stated = dict(scope["headers"]).get(b"content-length", b"0")
        if not stated.isdigit():
            raise InvalidRequest("content-length", "a number of bytes", repr(stated[:20]))
        if int(stated) > self._max_body_bytes:
            raise self._too_large(f"{int(stated)} bytes")

    def _limited(self, receive: Receive) -> Receive:
        """Counts the bytes that arrive: a body may be sent in pieces without a stated length."""
        num_bytes = 0

        async def counting() -> Message:
            nonlocal num_bytes
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if num_bytes > self._max_body_bytes:
                raise self._too_large("more")
            return message

        return counting

    def _too_large(self, actual: str) -> TooLarge:
        return TooLarge("body", f"at most {self._max_body_bytes} bytes", actual)

    def _observe(self, scope: Scope, state: dict[str, Any]) -> None:
        if scope["path"].startswith("/v1/"):
            seconds = (monotonic_ns() - state["received_ns"]) / 1e9
            self._metrics.observe_request("http", state["outcome"], seconds)


def _answer(error: Exception) -> tuple[ErrorReport, Response]:
    """A failure's report and problem document. A failure to make them is reported as an internal error."""
    try:
        problem = report(error, "http")
        return problem, problem_response(problem)
    except Exception as second:  # noqa: BLE001  # every failure gets an answer; the log has the traceback
        problem = internal(second, "http")
        return problem, problem_response(problem)
