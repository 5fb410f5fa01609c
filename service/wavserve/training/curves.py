"""The losses of a stage as a picture: one SVG, a panel for each term against the step.

Knows numbers and names only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from wavserve.core.charts import HEIGHT, LEFT, TOP, WIDTH, Frame, polyline, round_numbers, rules, text, ticks

_STYLE = (
    "svg{background:#fff}text{font:11px sans-serif;fill:#475569}.rule{stroke:#e2e8f0}"
    ".line{fill:none;stroke:#2563eb;stroke-width:1.3}.title{font-weight:600;fill:#0f172a}"
)
_GAP = 26


def draw(title: str, terms: Sequence[str], rows: NDArray[np.float32]) -> str:
    """The SVG of a curve `[n, 1 + terms]` whose first column is the step. A term without numbers has no panel."""
    panels = list(_panels(terms, rows))
    height = _GAP + sum(HEIGHT + _GAP for _ in panels)
    placed = [f'<g transform="translate(0 {_GAP + i * (HEIGHT + _GAP)})">{panel}</g>' for i, panel in enumerate(panels)]
    box = f'viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {box}>'
        f"<style>{_STYLE}</style>{_title(title, 18)}{''.join(placed)}</svg>\n"
    )


def _panels(terms: Sequence[str], rows: NDArray[np.float32]) -> Iterator[str]:
    for column, term in enumerate(terms, start=1):
        known = rows[np.isfinite(rows[:, column])]
        if not len(known):
            continue
        values = known[:, column].astype(float)
        low, high = float(values.min()), _high(values)
        frame = Frame(0.0, max(float(rows[-1, 0]), 1.0), low - (high - low) * 0.05, high + (high - low or 1e-3) * 0.05)
        points = [(float(step), min(float(value), frame.high)) for step, value in zip(known[:, 0], values, strict=True)]
        drawn = [rules(frame), ticks(frame, round_numbers(frame.x1)), polyline("line", frame, points)]
        yield "".join([_title(f"{term}: {values[-1]:.4g}", TOP - 2), *drawn])


def _high(values: NDArray[np.float64]) -> float:
    """The top of a panel: the first losses are many times the later ones, and would flatten them."""
    later = values[math.ceil(len(values) * 0.05) :]
    return float((later if len(later) else values).max())


def _title(words: str, y: float) -> str:
    return text(LEFT, y, words, "start").replace("<text", '<text class="title"', 1)
