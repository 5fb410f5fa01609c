"""A dashboard as one SVG: every panel with its title, lines, axes and legend. Knows no Prometheus and no Grafana."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from deploy.grafana.panels import Board, Panel
from wavserve.core.charts import LEFT, RIGHT, WIDTH, Frame, Point, polyline, round_numbers, rules, ticks

COLUMNS, GAP, PLOT = 2, 24, 170
TITLE, LINE, CHARACTER = 26, 19, 8.3
"""Pixels: of a panel's title, of a line of its legend, of a character there."""
KEY = 22
SCALES: Mapping[str, tuple[tuple[float, str], ...]] = {
    "s": ((1.0, "s"), (1e-3, "ms")),
    "bytes": ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")),
    "Bps": ((1e6, "MB/s"), (1e3, "kB/s")),
    "percentunit": ((0.01, "%"),),
    "ops": ((1.0, "a second"),),
    "watt": ((1.0, "W"),),
}
"""Grafana's unit -> value and name of ours, the largest first"""
COLOURS = ("#1d4ed8", "#b45309", "#047857", "#7c3aed", "#be185d", "#475569", "#0891b2", "#ca8a04")
STYLE = (
    "svg{background:#fff}text{font:14px system-ui,sans-serif;fill:#4b5563}.title{font-weight:600;fill:#111827}"
    ".row{font-size:19px;font-weight:600;fill:#111827}.none{font-style:italic}.rule{stroke:#e3e6ea}"
    "polyline{fill:none;stroke-width:1.8}"
    + "".join(f".c{index}{{stroke:{colour}}}" for index, colour in enumerate(COLOURS))
    + ".d1{stroke-dasharray:6 3}.d2{stroke-dasharray:2 3}"
)


@dataclass(frozen=True, slots=True)
class Line:
    """A series of a panel. `points`: seconds since the beginning, value; NaN where there is none."""

    legend: str
    points: Sequence[Point]


def picture(board: Board, lines: Mapping[str, Sequence[Line]], seconds: float, caption: str) -> str:
    """A dashboard. `lines`: of each panel, by its title."""
    parts, y = [], 40.0
    for title, panels in board.rows.items():
        parts.append(f'<text class="row" x="{GAP}" y="{y:.0f}">{escape(title)}</text>')
        y += 12
        for row in _batched(panels):
            drawn = [_panel(panel, lines[panel.title], seconds) for panel in row]
            for column, (markup, _) in enumerate(drawn):
                parts.append(f'<g transform="translate({GAP + column * (WIDTH + GAP)},{y:.0f})">{markup}</g>')
            y += max(height for _, height in drawn) + GAP / 2
        y += GAP
    width, height = GAP + COLUMNS * (WIDTH + GAP), y + LINE
    foot = f'<text x="{GAP}" y="{y:.0f}">{escape(caption)}</text>'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:.0f}" role="img">'
    back = f'<rect width="{width}" height="{height:.0f}" fill="#fff"/>'
    label = f"<title>{escape(board.title)}</title><style>{STYLE}</style>"
    return f"{head}{label}{back}{''.join(parts)}{foot}</svg>\n"


def _batched(panels: Sequence[Panel]) -> Iterator[Sequence[Panel]]:
    return (panels[at : at + COLUMNS] for at in range(0, len(panels), COLUMNS))


def _panel(panel: Panel, lines: Sequence[Line], seconds: float) -> tuple[str, float]:
    """Markup and height of a panel."""
    values = [y for line in lines for _, y in line.points if math.isfinite(y)]
    if not values:
        title = f'<text class="title" x="0" y="18">{escape(panel.title)}</text>'
        return f'{title}<text class="none" x="{LEFT}" y="60">nothing of this happened in the run</text>', 80
    size, unit = _scale(panel.unit, max(map(abs, values)))
    low, high = _range(min(values) / size, max(values) / size)
    frame = Frame(0.0, seconds, low, high, height=PLOT)
    title = f"{panel.title}, {unit}" if unit else panel.title
    plot = [rules(frame, 5), ticks(frame, round_numbers(seconds), " s")]
    for index, line in enumerate(lines):
        for stretch in _stretches(line.points):
            plot.append(polyline(_kind(index), frame, [(x, y / size) for x, y in stretch]))
    legend, height = _legend(lines)
    head = f'<text class="title" x="0" y="18">{escape(title)}</text>'
    below = f'<g transform="translate(0,{TITLE + PLOT + 6})">{legend}</g>'
    return f'{head}<g transform="translate(0,{TITLE})">{"".join(plot)}</g>{below}', TITLE + PLOT + 6 + height


def _scale(unit: str, largest: float) -> tuple[float, str]:
    scales = SCALES.get(unit, ((1.0, ""),))
    return next((each for each in scales if largest >= each[0]), scales[-1])


def _range(least: float, most: float) -> tuple[float, float]:
    """Four equal round steps from 0, or around 0."""
    half = 2 if least < 0 else 4
    reach = max(most, -least) or float(half)
    power = 10 ** math.floor(math.log10(reach / half))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power * half >= reach * 0.999)
    return (-half * step if least < 0 else 0.0), half * step


def _stretches(points: Sequence[Point]) -> Iterator[Sequence[Point]]:
    """The points between two gaps. One alone gets a short line, so that it is seen."""
    for finite, stretch in itertools.groupby(points, key=lambda point: math.isfinite(point[1])):
        if finite:
            kept = list(stretch)
            yield kept if len(kept) > 1 else [kept[0], (kept[0][0] + 1.0, kept[0][1])]


def _kind(index: int) -> str:
    return f"c{index % len(COLOURS)} d{index // len(COLOURS)}"


def _legend(lines: Sequence[Line]) -> tuple[str, float]:
    """The lines' names, as many in a row as there is room for; and the height."""
    parts, x, y = [], float(LEFT), 10.0
    for index, line in enumerate(lines):
        width = KEY + CHARACTER * len(line.legend) + 14
        if x > LEFT and x + width > WIDTH - RIGHT:
            x, y = float(LEFT), y + LINE
        parts.append(f'<polyline class="{_kind(index)}" points="{x:.0f},{y - 5:.0f} {x + KEY - 6:.0f},{y - 5:.0f}"/>')
        parts.append(f'<text x="{x + KEY:.0f}" y="{y:.0f}">{escape(line.legend)}</text>')
        x += width
    return "".join(parts), y + 8
