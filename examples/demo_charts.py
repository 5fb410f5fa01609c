"""Small inline SVG charts for the demo page: dots, lines, bars. They need no plotting library.

Elements have classes; the page's style sheet defines their colours and text sizes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from wavserve.core.charts import round_numbers


@dataclass(frozen=True, slots=True)
class Frame:
    """A drawing of `width` x `height` pixels for values `x0..x1` and `y0..y1`, with margins in pixels for labels."""

    width: int
    height: int
    x0: float
    x1: float
    y0: float
    y1: float
    left: int = 44
    bottom: int = 26
    top: int = 8
    right: int = 8

    def x(self, value: float) -> float:
        return self.left + (value - self.x0) / (self.x1 - self.x0) * (self.width - self.left - self.right)

    def y(self, value: float) -> float:
        return (
            self.height - self.bottom - (value - self.y0) / (self.y1 - self.y0) * (self.height - self.bottom - self.top)
        )


def around(values: Iterable[float], margin: float = 0.08) -> tuple[float, float]:
    """A range with a margin around all values. It is never empty."""
    listed = list(values)
    low, high = min(listed), max(listed)
    room = (high - low) * margin or max(abs(high), 1.0) * margin
    return low - room, high + room


def svg(frame: Frame, label: str, *parts: str) -> str:
    """The drawing as an `<svg>` element with an accessible name."""
    return (
        f'<svg viewBox="0 0 {frame.width} {frame.height}" width="{frame.width}" height="{frame.height}" role="img" '
        f'aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )


def axes(frame: Frame, x_label: str, x_ticks: Sequence[float], y_ticks: int = 4) -> str:
    """Horizontal grid lines at round numbers, ticks below, and the label of the x axis."""
    parts = []
    for value in round_numbers(frame.y1, frame.y0, y_ticks):
        parts.append(line("grid", frame.x(frame.x0), frame.y(value), frame.x(frame.x1), frame.y(value)))
        parts.append(text(frame.left - 6, frame.y(value) + 3, f"{value:.3g}", "end"))
    parts += [text(frame.x(tick), frame.height - frame.bottom + 12, f"{tick:g}") for tick in x_ticks]
    parts.append(text(frame.x((frame.x0 + frame.x1) / 2), frame.height - 3, x_label))
    return "".join(parts)


def line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def text(x: float, y: float, content: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(content)}</text>'


def dot(kind: str, x: float, y: float, radius: float, title: str) -> str:
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}"><title>{escape(title)}</title></circle>'


def polyline(kind: str, frame: Frame, values: Sequence[float]) -> str:
    """A line through `(0, values[0]), (1, values[1]), ...`."""
    return curve(kind, frame, list(enumerate(values)))


def curve(kind: str, frame: Frame, places: Iterable[tuple[float, float]]) -> str:
    """A line through places `(x, y)`."""
    points = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in places)
    return f'<polyline class="{kind}" points="{points}"/>'


def column(frame: Frame, x: float, half: float) -> str:
    """A shaded strip over the whole height, `half` pixels to each side of `x`."""
    height = frame.height - frame.bottom - frame.top
    return (
        f'<rect class="column" x="{frame.x(x) - half:.1f}" y="{frame.top}" width="{2 * half:.1f}" height="{height}"/>'
    )


def score_plot(iteration: Mapping[str, Any]) -> str:
    """One iteration of a receipt: a column per video sample n, a dot per value sample's SNR, and a bar at n's score.

    Elite video samples have a shaded column; elite value samples (rows `n * M + m`) have a filled dot.
    """
    snr, scores = iteration["snr"], iteration["scores"]
    low, high = around([*scores, *(value for row in snr for value in row)])
    frame = Frame(max(260, 60 + 24 * len(snr)), 210, -0.5, len(snr) - 0.5, low, high)
    half = (frame.x(1) - frame.x(0)) * 0.42
    parts = [column(frame, n, half) for n in iteration["video_elites"]]
    parts.append(axes(frame, "video sample n", range(0, len(snr), 1 if len(snr) <= 12 else 5)))
    for n, (row, score) in enumerate(zip(snr, scores, strict=True)):
        parts.append(line("score", frame.x(n) - half, frame.y(score), frame.x(n) + half, frame.y(score)))
        for m, value in enumerate(row):
            elite = n * len(row) + m in iteration["value_elites"]
            title = f"n={n} m={m} SNR {value:.4g}{', elite' if elite else ''}"
            parts.append(dot("elite" if elite else "plain", frame.x(n), frame.y(value), 4 if elite else 3, title))
    return svg(frame, "SNR of every value sample by video sample", *parts)


def spread_plot(video: Sequence[float], value: Sequence[float]) -> str:
    """Mean noise std of both Gaussians after each iteration. The std is 1 before iteration 1."""
    low, high = around([*video, *value, 1.0])
    frame = Frame(320, 170, 0, max(len(video), 1), low, high)
    lines = [polyline("first", frame, [1.0, *video]), polyline("second", frame, [1.0, *value])]
    return svg(frame, "noise std per iteration", axes(frame, "iterations done", range(len(video) + 1)), *lines)


def stage_bars(stages: Sequence[tuple[str, float]]) -> str:
    """A bar for each stage, in milliseconds."""
    longest = max([ms for _, ms in stages] + [1e-9])
    frame = Frame(420, 22 * len(stages) + 6, 0, longest, 0, 1, left=120, right=80)
    parts = []
    for i, (name, ms) in enumerate(stages):
        top = 4 + 22 * i
        width = frame.x(ms) - frame.left
        parts.append(f'<rect class="bar" x="{frame.left}" y="{top}" width="{width:.1f}" height="15"/>')
        parts.append(text(frame.left - 8, top + 12, name, "end"))
        parts.append(text(frame.x(ms) + 6, top + 12, f"{ms:.1f} ms", "start"))
    return svg(frame, "time by stage", *parts)


def action_plot(name: str, values: Sequence[float]) -> str:
    """One action dimension over the steps of the chunk."""
    low, high = around(values)
    frame = Frame(230, 120, 0, max(len(values) - 1, 1), low, high)
    ticks = sorted({0, len(values) // 2, len(values) - 1})
    return svg(frame, f"action {name}", axes(frame, "step", ticks, y_ticks=2), polyline("first", frame, values))
