"""Writes objects as lines of JSON, on a thread of its own: a slow reader delays nobody. Knows not what they say."""

from __future__ import annotations

import json
import logging
import queue
from collections.abc import Callable, Mapping
from threading import Thread
from typing import TextIO

log = logging.getLogger(__name__)

MAX_LINES = 4096
"""Lines that wait for the reader. More are dropped."""
CLOSE_WITHIN_S = 2.0


class LineWriter:
    """The lines of one stream."""

    def __init__(self, stream: TextIO, on_drop: Callable[[], None], max_lines: int = MAX_LINES) -> None:
        """`on_drop` is called for each line that is lost."""
        self._stream = stream
        self._on_drop = on_drop
        self._lines: queue.Queue[Mapping[str, object] | None] = queue.Queue(max_lines)
        self._broken = False
        self._thread = Thread(target=self._write_all, name="wavserve-lines", daemon=True)
        self._thread.start()

    def put(self, line: Mapping[str, object]) -> None:
        """Has a line written. It is dropped when too many wait."""
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._on_drop()

    def close(self) -> None:
        """Writes what waits, for as long as the reader takes it within a few seconds."""
        try:
            self._lines.put(None, timeout=CLOSE_WITHIN_S)
        except queue.Full:
            return
        self._thread.join(CLOSE_WITHIN_S)

    def _write_all(self) -> None:
        while (line := self._lines.get()) is not None:
            self._write(json.dumps(line, default=str))

    def _write(self, text: str) -> None:
        try:
            self._stream.write(f"{text}\n")
            self._stream.flush()
        except (OSError, ValueError) as error:  # the reader is gone, or the stream is closed
            self._on_drop()
            if not self._broken:
                log.warning("lines of JSON cannot be written: %s", error)
            self._broken = True
