"""Drawings of a plan as inline SVG: its scores by iteration, and each dimension of its actions. Knows no page.

Elements have classes; the page's style gives them colours. An accessible name says what a drawing shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from wavserve.core.spec import VectorSpec
from wavserve.core.types import Array, IterationRecord

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 220.0, 130.0, 46.0, 8.0, 8.0, 20.0
_SMALL_WIDTH, _SMALL_HEIGHT, _SMALL_PAD = 100.0, 36.0, 3.0


@dataclass(frozen=True, slots=True)
class ActionDrawing:
    """One dimension of a chunk."""

    name: str
    unit: str
    low: float
    high: float
    svg: Markup


def score_curve(iterations: Sequence[IterationRecord]) -> Markup | None:
    """Best and median score of each iteration over a band of all; None where nothing was scored."""
    scores = [each.scores for each in iterations if each.snr.size]
    if not scores:
        return None
    best, median = [float(each.max()) for each in scores], [float(np.median(each)) for each in scores]
    lowest = [float(each.min()) for each in scores]
    low, high = _room(min(lowest), max(best))
    xs = _spread(len(scores), _LEFT, _WIDTH - _RIGHT)

    def ys(values: Iterable[float]) -> list[float]:
        return [_TOP + (high - value) / (high - low) * (_HEIGHT - _TOP - _BOTTOM) for value in values]

    band = [*zip(xs, ys(best), strict=True), *reversed([*zip(xs, ys(lowest), strict=True)])]
    parts = [
        Markup('<polygon class="band" points="{}"/>').format(_points(band)),
        *(_rule(y, text) for y, text in zip(ys([max(best), min(lowest)]), (max(best), min(lowest)), strict=True)),
        Markup('<polyline class="median" points="{}"/>').format(_points(zip(xs, ys(median), strict=True))),
        Markup('<polyline class="best" points="{}"/>').format(_points(zip(xs, ys(best), strict=True))),
        *(_dot(x, y) for x, y in zip(xs, ys(best), strict=True)),
        *(_number(x, index + 1) for index, x in enumerate(xs)),
    ]
    label = f"Best score by iteration: {', '.join(f'{value:.3g}' for value in best)}"
    return _svg(_WIDTH, _HEIGHT, label, parts)


def action_drawings(actions: Array, declared: VectorSpec) -> list[ActionDrawing]:
    """A small drawing of each dimension of a chunk `[T, A]`."""
    drawings = []
    for column, name, unit in zip(actions.T, declared.names, declared.units, strict=True):
        low, high = float(column.min()), float(column.max())
        label = f"{name}: from {column[0]:.3g} to {column[-1]:.3g}, between {low:.3g} and {high:.3g} {unit}".strip()
        drawings.append(ActionDrawing(name, unit, low, high, _svg(_SMALL_WIDTH, _SMALL_HEIGHT, label, _line(column))))
    return drawings


def _line(values: NDArray[np.float32]) -> list[Markup]:
    """A polyline through the steps, and a rule at zero where that is within the drawing."""
    low, high = _room(float(values.min()), float(values.max()))
    ys = _SMALL_PAD + (high - values) / (high - low) * (_SMALL_HEIGHT - 2 * _SMALL_PAD)
    xs = _spread(len(values), _SMALL_PAD, _SMALL_WIDTH - _SMALL_PAD)
    zero = _SMALL_PAD + high / (high - low) * (_SMALL_HEIGHT - 2 * _SMALL_PAD)
    rule = Markup('<line class="rule" x1="0" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(_SMALL_WIDTH, zero, zero)
    line = Markup('<polyline class="action" points="{}"/>').format(_points(zip(xs, ys.tolist(), strict=True)))
    return [rule, line] if low <= 0 <= high else [line]


def _room(low: float, high: float) -> tuple[float, float]:
    """A range that is never empty."""
    return (low, high) if high - low > 1e-9 else (low - 0.5, high + 0.5)


def _spread(num: int, first: float, last: float) -> list[float]:
    """`num` places from `first` to `last`; one alone is in the middle."""
    if num == 1:
        return [(first + last) / 2]
    return [first + (last - first) * index / (num - 1) for index in range(num)]


def _points(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _rule(y: float, value: float) -> Markup:
    rule = Markup('<line class="rule" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(_LEFT, _WIDTH - _RIGHT, y, y)
    text = Markup('<text x="{}" y="{:.1f}" text-anchor="end">{:.3g}</text>').format(_LEFT - 6, y + 4, value)
    return rule + text


def _dot(x: float, y: float) -> Markup:
    return Markup('<circle class="best" cx="{:.1f}" cy="{:.1f}" r="3"/>').format(x, y)


def _number(x: float, number: int) -> Markup:
    return Markup('<text x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(x, _HEIGHT - 6, number)


def _svg(width: float, height: float, label: str, parts: Iterable[Markup]) -> Markup:
    begin = Markup('<svg viewBox="0 0 {:g} {:g}" role="img" aria-label="{}">').format(width, height, label)
    return begin + Markup("").join(parts) + Markup("</svg>")
