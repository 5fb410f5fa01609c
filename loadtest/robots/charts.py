"""The paper the plots are drawn on: a figure over the run's time, bins of it, and the figure as inline SVG.

Called by `plots`. Uses matplotlib's figures directly, without pyplot's global state and without a display.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from loadtest.robots.journal import Journal, Span

COLOURS = ("#0b62c4", "#c2410c", "#2f855a", "#8b5cf6", "#8b95a1", "#b7791f")
MAX_BINS = 120
STYLE: Any = {  # mypy would have each key be of a list of literals
    "svg.fonttype": "none",  # text stays text, in the page's own font
    "svg.hashsalt": "wavserve",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e3e6ea",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8,
}


def draw(width: float = 8.6, height: float = 2.7) -> tuple[Figure, Axes]:
    """An empty figure, sizes in inches."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        return figure, figure.subplots()


def svg(figure: Figure, label: str) -> str:
    """The drawing as an element of a page, with its accessible name."""
    drawn = io.StringIO()
    with mpl.rc_context(STYLE):
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    text = re.sub(r"<metadata>.*?</metadata>", "", drawn.getvalue(), flags=re.DOTALL)  # names a dozen web addresses
    return text[text.index("<svg") :].replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)


@dataclass(frozen=True, slots=True)
class Timeline:
    """The run's time from its begin, in seconds, cut into bins."""

    zero: float
    width: float
    count: int

    @classmethod
    def of(cls, journal: Journal) -> Timeline:
        zero = journal.spans[0].began
        ends = max([journal.spans[-1].ended, *(ask.ended for ask in journal.asks)])
        width = max(1.0, (ends - zero) / MAX_BINS)
        return cls(zero, width, int((ends - zero) / width) + 1)

    @property
    def begins(self) -> list[float]:
        return [index * self.width for index in range(self.count)]

    def bin(self, at: float) -> int:
        """Which bin a time of the run's clock falls into."""
        return min(max(int((at - self.zero) / self.width), 0), self.count - 1)

    def counts(self, times: Iterable[float]) -> list[int]:
        """How many of the times fall into each bin."""
        found = [0] * self.count
        for at in times:
            found[self.bin(at)] += 1
        return found

    def gathered(self, values: Iterable[tuple[float, float]]) -> list[list[float]]:
        """`(time, value)` -> the values of each bin."""
        found: list[list[float]] = [[] for _ in range(self.count)]
        for at, value in values:
            found[self.bin(at)].append(value)
        return found


def mark_phases(axes: Axes, spans: Sequence[Span], zero: float) -> None:
    """Shades every other phase and writes their names above."""
    for index, span in enumerate(spans):
        if index % 2:
            axes.axvspan(span.began - zero, span.ended - zero, color="#f3f5f8", zorder=0, lw=0)
        axes.annotate(
            span.name,
            ((span.began - zero), 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(2, 2),
            textcoords="offset points",
            fontsize=7,
            color="#66707d",
        )
    axes.set_xlabel("seconds")


def stack(axes: Axes, timeline: Timeline, layers: Sequence[tuple[str, Sequence[float], str]]) -> None:
    """Stacked bars over time: (name, a value a bin, colour); layers of nothing are left out."""
    below = [0.0] * timeline.count
    for name, values, colour in layers:
        if any(values):
            axes.bar(timeline.begins, values, timeline.width, below, label=name, color=colour, align="edge", lw=0)
            below = [low + value for low, value in zip(below, values, strict=True)]


def legend(axes: Axes) -> None:
    """Beside the plot, where something is named."""
    handles, names = axes.get_legend_handles_labels()
    if handles:
        axes.legend(handles, names, loc="upper left", bbox_to_anchor=(1.0, 1.0))
