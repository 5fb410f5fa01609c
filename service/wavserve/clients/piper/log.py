"""The log of a run: one JSON object a line, in files that rotate. A thread of its own writes them.

`write` never waits: when the disk is full or slow, lines are dropped and counted, and the count becomes a line as soon
as one can be written. Knows no content.
"""

from __future__ import annotations

import contextlib
import json
import queue
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

Line = Mapping[str, Any]
MAX_WAITING = 2000
"""lines; a minute of control at 30 Hz"""


def open_file(path: Path) -> IO[str]:
    return path.open("a", encoding="utf-8", buffering=1)


class RunLog:
    """`path` is the newest file; `path.1` the one before. The oldest beyond `num_files` is deleted."""

    def __init__(
        self, path: Path, max_bytes: int, num_files: int, opener: Callable[[Path], IO[str]] = open_file
    ) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._num_files = num_files
        self._opener = opener
        self._queue: queue.Queue[Line | None] = queue.Queue(MAX_WAITING)
        self._num_dropped = 0
        self._num_reported = 0
        self._file: IO[str] | None = None
        self._size = 0
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    @property
    def num_dropped(self) -> int:
        return self._num_dropped

    def write(self, kind: str, **fields: Any) -> None:
        """Queues a line: `t` (monotonic seconds), `kind`, and the fields. Never waits, never raises."""
        try:
            self._queue.put_nowait({"t": round(time.monotonic(), 5), "kind": kind, **fields})
        except queue.Full:
            self._num_dropped += 1

    def close(self, timeout_s: float = 2.0) -> None:
        """Writes what waits, for at most this long."""
        try:
            self._queue.put(None, timeout=timeout_s)
        except queue.Full:
            return
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while (line := self._queue.get()) is not None:
            self._put(line)
        if self._file is not None:
            self._file.close()

    def _put(self, line: Line) -> None:
        dropped = self._num_dropped
        try:
            if dropped > self._num_reported:
                self._put_text({"t": line["t"], "kind": "log_dropped", "lines": dropped - self._num_reported})
                self._num_reported = dropped
            self._put_text(line)
        except Exception:  # noqa: BLE001  a full disk, or a line that is no JSON: the log is an aid, and goes on
            self._num_dropped += 1
            self._abandon()

    def _put_text(self, line: Line) -> None:
        text = json.dumps(line, default=_plain, separators=(",", ":")) + "\n"
        if self._file is None:
            self._file = self._opener(self._path)
            self._size = self._path.stat().st_size if self._path.exists() else 0
        if self._size and self._size + len(text) > self._max_bytes:
            self._rotate()
        self._file.write(text)
        self._size += len(text)

    def _rotate(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        for number in range(self._num_files - 1, 0, -1):
            older = rotated(self._path, number - 1)
            if older.exists():
                older.replace(rotated(self._path, number))
        if self._num_files == 1:
            self._path.unlink(missing_ok=True)
        self._file, self._size = self._opener(self._path), 0

    def _abandon(self) -> None:
        """A file whose write failed is opened anew with the next line."""
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()


def rotated(path: Path, number: int) -> Path:
    """The name of the file `number` rotations ago; 0: the newest."""
    return path if number == 0 else path.with_name(f"{path.name}.{number}")


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)
