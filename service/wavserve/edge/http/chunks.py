"""Bounds the chunks of a body, because each costs a step of the event loop however few bytes it has.

Extends h11's connection. Knows neither uvicorn nor any route.
"""

from __future__ import annotations

from typing import Any

import h11

MAX_SMALL_CHUNKS = 1_000
"""Chunks that a body may have in any case."""
CHUNK_BYTES = 1024
"""For each further chunk a body must have this many bytes. Clients that send chunks fill 4 KiB and more."""


class BoundedConnection(h11.Connection):
    """`obstacle` says why the body that arrives is refused; None: it is not."""

    obstacle: str | None = None
    _num_chunks = 0
    _num_bytes = 0

    def next_event(self) -> Any:
        """As h11's. Raises h11.RemoteProtocolError for a body of too many small chunks as well."""
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._num_chunks = self._num_bytes = 0
        elif isinstance(event, h11.Data):
            self._num_chunks += event.chunk_start
            self._num_bytes += len(event.data)
            if self._num_chunks > MAX_SMALL_CHUNKS + self._num_bytes // CHUNK_BYTES:
                self.obstacle = f"The body has more than {MAX_SMALL_CHUNKS} chunks of less than {CHUNK_BYTES} bytes."
                raise h11.RemoteProtocolError(self.obstacle)
        return event
