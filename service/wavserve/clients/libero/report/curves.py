"""Success as a curve: against the delay of plans, and against an option of the planner. Drawn as inline SVG.

A curve joins the cells of a run that differ in nothing else. Knows no page.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from wavserve.clients.libero.cells import Cell
from wavserve.clients.libero.report.statistics import Estimate
from wavserve.clients.libero.report.summary import Summary, cell_words
from wavserve.core.charts import Frame, figure, polyline, rules, text, ticks

COLOURS = ("first", "second", "third", "fourth", "fifth", "sixth")
STYLE = "".join(f".{colour} {{ stroke: var(--{colour}); fill: var(--{colour}); }}\n" for colour in COLOURS) + (
    "svg polyline.curve { fill: none; stroke-width: 2; } .whisker { stroke-width: 1.2; }\n"
)
_HEIGHT, _BOTTOM = 260, 40


@dataclass(frozen=True, slots=True)
class Curve:
    """Average success of cells that differ in one number."""

    name: str
    points: tuple[tuple[float, Estimate], ...]
    """by that number, ascending"""


def against_delay(summary: Summary) -> list[Curve]:
    """By mean latency in ms, on the virtual clock; one curve for each way of chunking in real time."""

    def delay(cell: Cell) -> float | None:
        return cell.latency_ms if cell.clock == "virtual" else None

    return _curves(summary, delay, lambda cell: dataclasses.replace(cell, name="", latency_ms=0.0))


def against_options(summary: Summary) -> dict[str, list[Curve]]:
    """For each numeric option of the planner that differs between cells alike in everything else: their curves."""
    names = {name: None for cell in summary.cells for name in cell.planner}
    found = {name: _against_option(summary, name) for name in names}
    return {name: curves for name, curves in found.items() if curves}


def _against_option(summary: Summary, name: str) -> list[Curve]:
    def number(cell: Cell) -> float | None:
        value = cell.planner.get(name)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

    def rest(cell: Cell) -> Cell:
        others = {key: value for key, value in cell.planner.items() if key != name}
        return dataclasses.replace(cell, name="", planner=others)

    return _curves(summary, number, rest)


def _curves(summary: Summary, number: Callable[[Cell], float | None], rest: Callable[[Cell], Cell]) -> list[Curve]:
    groups: list[tuple[Cell, list[tuple[float, Estimate]]]] = []
    for cell in summary.cells:
        if (x := number(cell)) is None or not (average := summary.average(cell)).num:
            continue
        points = next((points for other, points in groups if other == rest(cell)), None)
        if points is None:
            groups.append((rest(cell), points := []))
        points.append((x, average))
    return [
        Curve(_name(other), tuple(sorted(points, key=lambda point: point[0])))
        for other, points in groups
        if len({x for x, _ in points}) > 1
    ]


def _name(cell: Cell) -> str:
    chunking = "without RTC" if cell.rtc == "off" else f"with RTC ({cell.rtc.removeprefix('rtc_')})"
    return f"{cell_words(cell)}, {chunking}"


def draw(curves: Sequence[Curve], title: str, x_words: str) -> str:
    """A figure with a line through each curve's points, and their intervals as whiskers."""
    xs = sorted({x for curve in curves for x, _ in curve.points})
    room = (xs[-1] - xs[0]) * 0.04
    frame = Frame(xs[0] - room, xs[-1] + room, 0.0, 100.0, _HEIGHT, _BOTTOM)
    parts = [rules(frame, 5), ticks(frame, xs), text(frame.x((xs[0] + xs[-1]) / 2), _HEIGHT - 6, x_words)]
    for index, curve in enumerate(curves):
        parts += _drawn(frame, curve, COLOURS[index % len(COLOURS)], (index - (len(curves) - 1) / 2) * 3)
    return figure(frame, title, parts)


def keys(curves: Sequence[Curve]) -> list[tuple[str, str, str]]:
    """For the legend."""
    return [(COLOURS[index % len(COLOURS)], curve.name, "") for index, curve in enumerate(curves)]


def _drawn(frame: Frame, curve: Curve, colour: str, shift: float) -> Iterable[str]:
    """`shift`: pixels to the right, so that whiskers of several curves stand beside each other."""
    yield polyline(f"curve {colour}", frame, [(x, estimate.value * 100) for x, estimate in curve.points])
    for x, estimate in curve.points:
        at, low, high = frame.x(x) + shift, frame.y(estimate.low * 100), frame.y(estimate.high * 100)
        yield f'<line class="whisker {colour}" x1="{at:.1f}" x2="{at:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>'
        yield f'<circle class="{colour}" cx="{at:.1f}" cy="{frame.y(estimate.value * 100):.1f}" r="3"/>'
