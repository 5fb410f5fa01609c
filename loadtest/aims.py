"""Aims of a benchmark or a load test: the limit, the measured value, and whether the aim is met.

Every benchmark's JSON output and every load test's results have a list `aims` of these entries. A benchmark without an
aim has an empty list. This module knows no threshold.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypedDict

NOT_MEASURED = "not measured"
COLUMNS = ("criterion", "aim", "seen", "met")


class Aim(TypedDict):
    """One aim, as JSON has it. `met` is None when the run did not measure it."""

    name: str
    aim: str | float
    seen: str | float
    met: bool | None


def entry(name: str, aim: str | float, seen: str | float, met: bool | None) -> Aim:
    """An entry of the list `aims`."""
    return {"name": name, "aim": aim, "seen": seen, "met": met}


def at_most(name: str, limit: float, seen: float | None) -> Aim:
    """An entry for an upper limit. `seen` has the unit of `limit`; None means that it was not measured."""
    if seen is None:
        return entry(name, f"<= {limit:g}", NOT_MEASURED, None)
    return entry(name, f"<= {limit:g}", float(seen), bool(seen <= limit))


def at_least(name: str, limit: float, seen: float | None) -> Aim:
    """An entry for a lower limit. `seen` has the unit of `limit`; None means that it was not measured."""
    if seen is None:
        return entry(name, f">= {limit:g}", NOT_MEASURED, None)
    return entry(name, f">= {limit:g}", float(seen), bool(seen >= limit))


def prefixed(part: str, aims: Iterable[Aim]) -> list[Aim]:
    """The same entries. The name of a part or benchmark precedes each name."""
    return [entry(f"{part}: {one['name']}", one["aim"], one["seen"], one["met"]) for one in aims]


def none_missed(aims: Sequence[Aim]) -> bool:
    """Whether every measured aim is met."""
    return all(one["met"] is not False for one in aims)


def cells(one: Aim) -> tuple[str, str, str, str]:
    """An aim as a row of a table with the columns COLUMNS. `met` is yes, NO, or - if it was not measured."""
    met = "-" if one["met"] is None else "yes" if one["met"] else "NO"
    return one["name"], _text(one["aim"]), _text(one["seen"]), met


def table(aims: Sequence[Aim]) -> str:
    """The aims as text, one per line below a header."""
    rows = [COLUMNS, *map(cells, aims)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _text(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:g}"
