"""The HTTP server: uvicorn, independent of what else is installed and of the environment.

Knows neither routes nor policy.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from wavserve.edge.http.connections import MAX_HEAD_BYTES, HttpConnection, WebSockets
from wavserve.edge.http.open_connections import ConnectionLimits, LogThrottle, OpenConnections

log = logging.getLogger(__name__)

BACKLOG = 128
"""Connections that wait to be accepted. asyncio also accepts so many at once, and logs so many failures at once."""


class HttpServer(uvicorn.Server):
    """uvicorn without its signal handlers: a signal stops both edges, in our order."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def create_http_server(
    app: ASGIApp, limits: ConnectionLimits, grace_s: int, websockets: WebSockets | None = None
) -> HttpServer:
    """The server of an app, without a socket and not started. `grace_s`: how long a stop waits for connections.

    `websockets`: None: none.
    """
    protocol: Any = partial(HttpConnection, OpenConnections(limits), websockets)
    return HttpServer(
        uvicorn.Config(
            app,
            http=protocol,  # h11's, even where httptools is installed: it reads nothing after a client offers HTTP/2
            ws="none",  # the connection has its own; uvicorn's limit neither frames nor bytes under way
            loop="asyncio",
            interface="asgi3",
            lifespan="off",
            workers=1,  # else WEB_CONCURRENCY is read
            proxy_headers=False,  # else a client on this machine may name another address as its own
            log_config=None,
            log_level="error",  # else one or two lines for each request that is malformed or offers HTTP/2
            access_log=False,
            server_header=False,
            h11_max_incomplete_event_size=MAX_HEAD_BYTES,
            backlog=BACKLOG,
            timeout_keep_alive=limits.idle_s,
            timeout_graceful_shutdown=grace_s,  # an endless upload must not keep the service alive
        )
    )


def throttle_accept_errors(loop: asyncio.AbstractEventLoop) -> None:
    """Makes the loop log connections that it cannot accept in one line, at most once in LOG_EVERY_S.

    Where no file descriptor is left, asyncio fails and logs a traceback many times a second.
    """
    throttle = LogThrottle()
    loop.set_exception_handler(partial(_on_loop_error, throttle, loop.default_exception_handler))


def _on_loop_error(
    throttle: LogThrottle,
    otherwise: Callable[[dict[str, Any]], None],
    _loop: asyncio.AbstractEventLoop,
    context: dict[str, Any],
) -> None:
    if not str(context.get("message", "")).startswith("socket.accept()"):
        otherwise(context)
    elif num := throttle.due():
        log.error("http: cannot accept connections (%d failures): %s", num, context.get("exception"))
