"""Drawing for the plots: a figure over the run's time, time bins, and the figure as inline SVG.

It uses matplotlib's figures directly, without pyplot's global state and without a display. This module does not know
the meaning of the values.
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

from loadtest.robots.event_log import EventLog, PhaseRecord

COLOURS = ("#0b62c4", "#c2410c", "#2f855a", "#8b5cf6", "#8b95a1", "#b7791f")
MAX_BINS = 120
STYLE: Any = {  # the type stub of rc_context accepts literal keys only
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


def new_figure(width: float = 8.6, height: float = 2.7) -> tuple[Figure, Axes]:
    """An empty figure. Sizes are in inches."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        return figure, figure.subplots()


def svg(figure: Figure, label: str) -> str:
    """The figure as an `<svg>` element with an accessible name."""
    drawn = io.StringIO()
    with mpl.rc_context(STYLE):
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    text = re.sub(r"<metadata>.*?</metadata>", "", drawn.getvalue(), flags=re.DOTALL)  # it has a dozen web addresses
    return text[text.index("<svg") :].replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)


@dataclass(frozen=True, slots=True)
class Timeline:
    """The seconds since the run began, in bins of equal width."""

    zero: float
    width: float
    count: int

    @classmethod
    def of(cls, log: EventLog) -> Timeline:
        zero = log.phases[0].began
        ends = max([log.phases[-1].ended, *(request.ended for request in log.requests)])
        width = max(1.0, (ends - zero) / MAX_BINS)
        return cls(zero, width, int((ends - zero) / width) + 1)

    @property
    def begins(self) -> list[float]:
        return [index * self.width for index in range(self.count)]

    def bin(self, at: float) -> int:
        """Index of the bin that holds a time of the run's clock."""
        return min(max(int((at - self.zero) / self.width), 0), self.count - 1)

    def counts(self, times: Iterable[float]) -> list[int]:
        """How many of the times fall into each bin."""
        counts = [0] * self.count
        for at in times:
            counts[self.bin(at)] += 1
        return counts

    def binned(self, values: Iterable[tuple[float, float]]) -> list[list[float]]:
        """The values of each bin, from pairs `(time, value)`."""
        bins: list[list[float]] = [[] for _ in range(self.count)]
        for at, value in values:
            bins[self.bin(at)].append(value)
        return bins


def mark_phases(axes: Axes, phases: Sequence[PhaseRecord], zero: float) -> None:
    """Shades every second phase and writes the names of all above the plot."""
    for index, phase in enumerate(phases):
        if index % 2:
            axes.axvspan(phase.began - zero, phase.ended - zero, color="#f3f5f8", zorder=0, lw=0)
        axes.annotate(
            phase.name,
            ((phase.began - zero), 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(2, 2),
            textcoords="offset points",
            fontsize=7,
            color="#66707d",
        )
    axes.set_xlabel("seconds")


def stacked_bars(axes: Axes, timeline: Timeline, layers: Sequence[tuple[str, Sequence[float], str]]) -> None:
    """Stacked bars over time. A layer is (name, one value per bin, colour). Layers of zeros are not drawn."""
    below = [0.0] * timeline.count
    for name, values, colour in layers:
        if any(values):
            axes.bar(timeline.begins, values, timeline.width, below, label=name, color=colour, align="edge", lw=0)
            below = [low + value for low, value in zip(below, values, strict=True)]


def legend(axes: Axes) -> None:
    """Adds a legend beside the plot when a series has a name."""
    handles, names = axes.get_legend_handles_labels()
    if handles:
        axes.legend(handles, names, loc="upper left", bbox_to_anchor=(1.0, 1.0))
