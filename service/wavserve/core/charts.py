"""Drawings as inline SVG: a frame, its rules and numbers, lines through points. Standard library only.

Elements have classes; a page's style gives them colours. Knows no run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 540, 170, 58, 8, 8, 22
MAX_POINTS = 1500
"""of a drawn line; a longer one keeps the lowest and the highest value of each stretch"""

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Frame:
    """A drawing: `x0..x1` to the right, `low..high` upwards."""

    x0: float
    x1: float
    low: float
    high: float
    height: int = HEIGHT
    bottom: int = BOTTOM
    """pixels below the plot"""

    def x(self, value: float) -> float:
        return LEFT + (value - self.x0) / (self.x1 - self.x0) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return self.floor - (value - self.low) / (self.high - self.low) * (self.floor - TOP)

    @property
    def floor(self) -> int:
        """Of the plot, in pixels."""
        return self.height - self.bottom


def around(values: Iterable[float]) -> tuple[float, float]:
    """A range with some room around all values. Never empty."""
    listed = list(values) or [0.0]
    low, high = min(listed), max(listed)
    room = (high - low) * 0.08 or max(abs(high) * 0.1, 1e-3)
    return low - room, high + room


def figure(frame: Frame, title: str, parts: Iterable[str]) -> str:
    """A drawing with its caption, which is its accessible name too."""
    label = escape(title)
    drawing = f'<svg viewBox="0 0 {WIDTH} {frame.height}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
    return f"<figure>{drawing}<figcaption>{label}</figcaption></figure>"


def rules(frame: Frame, num: int = 4) -> str:
    """Horizontal rules with their values."""
    parts = []
    for i in range(num):
        value = frame.low + (frame.high - frame.low) * i / (num - 1)
        y = frame.y(value)
        parts.append(f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(text(LEFT - 6, y + 4, f"{value:.4g}", "end"))
    return "".join(parts)


def ticks(frame: Frame, values: Iterable[float], unit: str = "") -> str:
    """Numbers below the plot."""
    return "".join(text(frame.x(value), frame.floor + 16, f"{value:g}{unit}") for value in values)


def text(x: float, y: float, words: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def polyline(kind: str, frame: Frame, points: Sequence[Point]) -> str:
    """A line through points, thinned."""
    drawn = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in thinned(points))
    return f'<polyline class="{kind}" points="{drawn}"/>'


def thinned(points: Sequence[Point]) -> Sequence[Point]:
    """At most MAX_POINTS; a jump of one step stays visible."""
    size = math.ceil(len(points) / (MAX_POINTS // 2))
    if size <= 2:
        return points
    kept: list[Point] = []
    for i in range(0, len(points), size):
        stretch = points[i : i + size]
        kept += sorted({min(stretch, key=lambda point: point[1]), max(stretch, key=lambda point: point[1])})
    return kept


def round_numbers(end: float, begin: float = 0.0, about: int = 6) -> list[float]:
    """The multiples of 1, 2 or 5 times a power of ten from `begin` to `end`, so that there are about that many."""
    span = (end - begin) or 1e-3
    power = 10.0 ** math.floor(math.log10(span / about))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power * (about + 0.5) >= span)
    return [float(f"{i * step:.6g}") for i in range(math.ceil(begin / step), math.floor(end / step) + 1)]
