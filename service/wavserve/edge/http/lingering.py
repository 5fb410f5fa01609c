"""The end of an HTTP connection whose client has not sent its whole body yet. Knows no HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any


class LingeringTransport(asyncio.Transport):
    """A transport whose `close` lets the client read its answer first.

    Closing a socket with unread data resets the connection, and a reset can destroy an answer on its way. So while a
    body is unread, `close` ends only this direction, and drops what still comes until the client closes.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        is_body_unread: Callable[[], bool],
        answer_s: float,
        linger_s: float,
        max_drained_bytes: int,
    ) -> None:
        """`answer_s`, `linger_s`: longest times after `close`, without and with an unread body."""
        super().__init__()
        self._transport = transport
        self._is_body_unread = is_body_unread
        self._answer_s, self._linger_s = answer_s, linger_s
        self._max_drained_bytes = max_drained_bytes
        self._closing = False
        self._num_drained = 0
        self._timer: asyncio.TimerHandle | None = None

    def close(self) -> None:
        if self.is_closing():
            return
        self._closing = True
        if self._is_body_unread():
            self._transport.write_eof()
            self._transport.resume_reading()
            self._abort_after(self._linger_s)
        else:
            self._transport.close()  # once everything is written
            self._abort_after(self._answer_s)

    def drain(self, num_bytes: int) -> None:
        """Drops bytes that came after `close`."""
        self._num_drained += num_bytes
        if self._num_drained > self._max_drained_bytes:
            self.abort()

    def lost(self) -> None:
        """The connection is gone: ends the time limit."""
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()

    def is_closing(self) -> bool:
        return self._closing or self._transport.is_closing()

    def abort(self) -> None:
        self._transport.abort()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._transport.write(data)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def _abort_after(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self.abort)
