"""h11's connection, with bounded chunks, and with two forms of a request's head that RFC 9112 allows.

A chunk costs a step of the event loop however few bytes it has. Knows neither uvicorn nor any route.
"""

from __future__ import annotations

import re
from typing import Any

import h11

MAX_SMALL_CHUNKS = 1_000
"""Chunks that a body may have in any case."""
CHUNK_BYTES = 1024
"""For each further chunk a body must have this many bytes. Clients that send chunks fill 4 KiB and more."""
EMPTY_LINE = b"\r\n"

_ABSOLUTE = re.compile(rb"https?://([^/?#]+)([^?]*)(.*)", re.IGNORECASE)
"""A target with the service's address in front: address, path, query."""


class BoundedConnection(h11.Connection):
    """`obstacle` says why the body that arrives is refused; None: it is not."""

    obstacle: str | None = None
    _num_chunks = 0
    _num_bytes = 0
    _is_line_skipped = False

    def next_event(self) -> Any:
        """As h11's. Raises h11.RemoteProtocolError for a body of too many small chunks as well."""
        if self._is_empty_line_begun():
            return h11.NEED_DATA
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._num_chunks = self._num_bytes = 0
            self._is_line_skipped = False
            return _with_path(event)
        if isinstance(event, h11.Data):
            self._num_chunks += event.chunk_start
            self._num_bytes += len(event.data)
            if self._num_chunks > MAX_SMALL_CHUNKS + self._num_bytes // CHUNK_BYTES:
                self.obstacle = f"The body has more than {MAX_SMALL_CHUNKS} chunks of less than {CHUNK_BYTES} bytes."
                raise h11.RemoteProtocolError(self.obstacle)
        return event

    def _is_empty_line_begun(self) -> bool:
        """Skips one empty line before a request, which old clients send behind a body. True: half of it is there."""
        if self.their_state is not h11.IDLE or self._is_line_skipped:
            return False
        if not self._receive_buffer.is_next_line_obviously_invalid_request_line():  # without a copy of what came
            return False
        begun = self.trailing_data[0][: len(EMPTY_LINE)]
        if begun == EMPTY_LINE:
            self._receive_buffer.maybe_extract_at_most(len(EMPTY_LINE))
            self._is_line_skipped = True
        return begun == EMPTY_LINE[:1]


def _with_path(request: h11.Request) -> h11.Request:
    """A request for an absolute target, as one for its path. The target's address replaces the header `Host`."""
    absolute = _ABSOLUTE.fullmatch(request.target)
    if absolute is None:
        return request
    address, path, query = absolute.groups()
    headers = [(name, address if name == b"host" else value) for name, value in request.headers]
    return h11.Request(
        method=request.method, headers=headers, target=(path or b"/") + query, http_version=request.http_version
    )
