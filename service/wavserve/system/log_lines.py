"""Log lines: one format for people and one for programs. Knows nothing of what is logged."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import TextIO

from wavserve.system.texts import printable


class JsonLines(logging.Formatter):
    """One JSON object per record: time (UTC), level, logger, message, the fields of `extra=`, and the traceback."""

    _PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {key: value for key, value in vars(record).items() if key not in self._PLAIN}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class TextLines(logging.Formatter):
    """One record a line. Further lines of a message or a traceback are indented, and what does not print is escaped.

    So no text that someone else wrote looks like a record of its own.
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        return "\n    ".join(map(printable, super().format(record).split("\n")))


def configure_logging(level: str, style: str, stream: TextIO | None = None) -> None:
    """Sends every log line to `stream` (None: standard error) as `text` or `json`, replacing earlier handlers.

    Run uvicorn with `log_config=None`, so that its lines use the same handler.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines() if style == "json" else TextLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
