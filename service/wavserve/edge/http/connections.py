"""HTTP connections: a time limit on every state of a connection.

It extends uvicorn's h11 protocol. A websocket takes its connection over, and stays within the same limits. Knows no
route: what it refuses itself, it refuses before there is a request.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Collection, Iterable
from typing import Any, Protocol

import h11
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from wavserve.edge.http.answers import problem_response
from wavserve.edge.http.h11_connection import BoundedConnection
from wavserve.edge.http.lingering import LingeringTransport
from wavserve.edge.http.open_connections import OpenConnections, plain_address
from wavserve.edge.report import http_problem, log_refusal
from wavserve.edge.websocket.connection import Head, WebSocket

CLOSE = {"connection": "close"}
MAX_HEAD_BYTES = 16 * 1024


class WebSockets(Protocol):
    """The endpoint of the websockets of a server."""

    @property
    def paths(self) -> Collection[str]: ...

    @property
    def max_message_bytes(self) -> int: ...

    async def serve(self, socket: WebSocket, head: Head) -> None:
        """Serves one websocket until it ends."""
        ...


class HttpConnection(H11Protocol):
    """uvicorn's protocol with a lingering close, and with a time limit on each of its states."""

    def __init__(
        self, connections: OpenConnections, websockets: WebSockets | None = None, **uvicorn_arguments: Any
    ) -> None:
        super().__init__(**uvicorn_arguments)
        self._websockets = websockets
        self._websocket: WebSocket | None = None
        self.conn = self._bounded = BoundedConnection(h11.SERVER, MAX_HEAD_BYTES)
        self._connections = connections
        self._limits = connections.limits
        self._counted: str | None = None  # the address under which this connection is counted
        self._lingering: LingeringTransport | None = None
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        limits = self._limits
        _end_when_unread(transport, limits.answer_s)
        self._lingering = LingeringTransport(
            transport, self._is_body_unread, limits.answer_s, limits.linger_s, limits.max_drained_bytes
        )
        super().connection_made(self._lingering)
        address = plain_address(self.client[0] if self.client else "")
        if (obstacle := self._connections.obstacle(address)) is not None:
            self._connections.log_refusal(obstacle)
            self._refuse(503, obstacle)
            return
        self._counted = address
        self._connections.add(address)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._counted is not None:
            self._connections.remove(self._counted)
        _cancel(self._head_timer)
        _cancel(self._write_timer)
        if self._lingering is not None:
            self._lingering.lost()
        if self._websocket is not None:
            self._websocket.lost()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        assert self._lingering is not None
        if self._lingering.is_closing():
            self._lingering.drain(len(data))
            return
        if self._websocket is not None:
            self._websocket.receive(data)
            return
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._expect_head()
        else:
            _cancel(self._head_timer)
            self._head_timer = None

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_timer = self.loop.call_later(self._limits.answer_s, self._abort)
        if self._websocket is not None:
            self.transport.pause_reading()  # each ping costs a pong

    def resume_writing(self) -> None:
        super().resume_writing()
        _cancel(self._write_timer)
        if self._websocket is not None:
            self.transport.resume_reading()

    def shutdown(self) -> None:
        if self._websocket is not None:
            self._websocket.drain()
        elif self.transport.is_closing():
            self._abort()  # its answer has been sent, or the client will never read it
        else:
            super().shutdown()

    def _should_upgrade(self) -> bool:
        """uvicorn asks it for each request. Any other upgrade is ignored, as RFC 9110 allows."""
        if self._websockets is None or self.scope["path"] not in self._websockets.paths:
            return False
        asked = self._get_upgrade() == b"websocket" and self.scope["http_version"] == "1.1"
        return asked and self.scope["method"] == "GET" and not _has_body(self.headers)

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """uvicorn calls it for a request that is to be upgraded. From now on h11 reads nothing."""
        assert self._websockets is not None
        sender = self.client[0] if self.client and self.client[0] else f"connection {id(self):x}"
        socket = self._websocket = WebSocket(self.transport, sender, self._websockets.max_message_bytes)
        head = Head(event.target, tuple(self.headers), self.conn.trailing_data[0])
        if socket.accept(head):
            task = self.loop.create_task(self._websockets.serve(socket, head))
            task.add_done_callback(self.tasks.discard)
            self.tasks.add(task)

    def send_400_response(self, msg: str) -> None:
        """uvicorn calls it for a request that h11 cannot parse."""
        reason = self._bounded.obstacle or f"It is no HTTP/1.1, or its headers are longer than {MAX_HEAD_BYTES} bytes."
        self._refuse(400, f"{msg} {reason}")

    def _expect_head(self) -> None:
        """Starts the time limit of a request's head; later bytes of the head do not restart it."""
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self._limits.head_s, self._on_late_head)

    def _on_late_head(self) -> None:
        if self.conn.trailing_data[0]:
            self._refuse(408, f"the headers did not arrive within {self._limits.head_s:g} s")
        else:
            self.transport.close()

    def _refuse(self, status: int, detail: str) -> None:
        """Answers in place of the app, and closes."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self._abort()  # an answer is on its way
            return
        problem = http_problem(status, detail)
        log_refusal(problem, "http", logging.DEBUG)  # any client can cause it without end
        answer = problem_response(problem, CLOSE)
        headers = [*self.server_state.default_headers, *answer.raw_headers]
        start = h11.Response(status_code=status, headers=headers, reason=STATUS_PHRASES[status])
        for event in (start, h11.Data(data=bytes(answer.body)), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # the app may still wait for the rest of a body
            self.cycle.message_event.set()
        self.transport.close()

    def _is_body_unread(self) -> bool:
        return self._websocket is not None or self.conn.their_state in (h11.SEND_BODY, h11.ERROR)

    def _abort(self) -> None:
        self.transport.abort()


def _end_when_unread(transport: asyncio.Transport, seconds: float) -> None:
    """Has the kernel end the connection of a client that has taken nothing of what it was sent for so long.

    `pause_writing` tells only of what waits in this process. The kernel takes megabytes, such as hours of the live
    page's events, and would go on for a quarter of an hour after the client's machine is gone.
    """
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(1e3 * seconds))


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


def _has_body(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a body follows the head. Its bytes must not be read as a websocket's."""
    return any(name == b"transfer-encoding" or (name == b"content-length" and value != b"0") for name, value in headers)
