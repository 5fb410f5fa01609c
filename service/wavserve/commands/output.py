"""Output of the commands: tables and JSON on standard output, progress on standard error.

Only this module and `cli` print. Knows nothing of the commands.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import sys
from collections.abc import Iterable, Sequence
from enum import Enum
from pathlib import Path

from wavserve.core.messages import json_integer


def write(text: str) -> None:
    """Writes a line of the result. A program behind a pipe reads it at once, also while others are to come."""
    print(text, flush=True)


def page(text: str) -> None:
    """Shows a page in place of the last one on a terminal; elsewhere one page after another."""
    if sys.stdout.isatty():
        print(f"\x1b[H\x1b[2J{text}", flush=True)
    else:
        print(f"{text}\n", flush=True)


def progress(text: str) -> None:
    """Writes a line about progress, which is never part of the result."""
    print(text, file=sys.stderr, flush=True)


def status(text: str) -> None:
    """Shows a line of progress in place of the last one, on a terminal."""
    print(f"\r\x1b[2K{text}", end="", file=sys.stderr, flush=True)


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A text table; each column is as wide as its widest cell."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in cells)


def as_json(value: object) -> str:
    """JSON text. It encodes dataclasses, enums, paths, arrays (as nested lists) and bytes (as base64).

    A dataclass's integer that a float64 might round is a decimal text, as in the service's answers.
    """
    return json.dumps(value, default=_plain, ensure_ascii=False)


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        values = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {name: json_integer(each) if isinstance(each, int) else each for name, each in values.items()}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if hasattr(value, "tolist"):  # numpy, without importing it
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no JSON form")
