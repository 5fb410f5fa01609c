"""A run's log as one HTML page that needs no network: figures, holds and faults, commands against measured joints.

The drawings are inline SVG. Knows no arm and no service.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from wavserve.clients.piper.figures import Line, Run, figures, read, rows

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 540, 170, 58, 8, 8, 22
MAX_POINTS = 1500
"""of a drawn line; a longer one keeps the lowest and the highest value of each stretch"""

STYLE = """
:root { color-scheme: light dark; --ink: #1d2530; --faint: #66707d; --rule: #e3e6ea; --page: #fff; --command: #1d4ed8;
        --measured: #f59e0b; --hold: #94a3b833; --bad: #dc2626; --seam: #64748b; }
@media (prefers-color-scheme: dark) { :root { --ink: #e5e9ef; --faint: #9aa4b2; --rule: #2c3440; --page: #12161c;
        --command: #7aa2ff; --measured: #fbbf24; --hold: #94a3b82e; --bad: #f87171; --seam: #94a3b8; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); margin: 2rem auto;
       max-width: 74rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; border-top: 1px solid var(--rule); padding-top: 1.2rem; }
p, figcaption { color: var(--faint); } table { border-collapse: collapse; font-size: .9rem; }
td, th { padding: .25rem 1rem .25rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--rule); }
td { overflow-wrap: anywhere; } td.no { color: var(--bad); font-weight: 600; } .wide { overflow-x: auto; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 30rem), 1fr)); gap: 1rem; }
figure { margin: 0; } figcaption { font-size: .85rem; } svg { width: 100%; height: auto; }
svg text { font: 11px system-ui, sans-serif; fill: var(--faint); } .rule { stroke: var(--rule); }
.command, .measured, .period { fill: none; stroke-width: 1.4; } .command { stroke: var(--command); }
.measured { stroke: var(--measured); stroke-width: 3; } .period { stroke: var(--command); }
.hold { fill: var(--hold); } .fault { stroke: var(--bad); stroke-width: 1.5; } .seam { stroke: var(--seam); }
.key { display: inline-block; width: 1.4rem; height: .2rem; vertical-align: middle; margin: 0 .3rem 0 1rem; }
"""


@dataclass(frozen=True, slots=True)
class Frame:
    """A drawing: seconds to the right, values upwards."""

    t0: float
    t1: float
    low: float
    high: float

    def x(self, t: float) -> float:
        return LEFT + (t - self.t0) / (self.t1 - self.t0) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (value - self.low) / (self.high - self.low) * (HEIGHT - BOTTOM - TOP)


Point = tuple[float, float]
Mark = tuple[str, float, float]
"""kind, from, to; in seconds"""


def write_report(log: Path, page: Path) -> None:
    """Reads a log and writes its page. Raises InvalidRequest when the log holds no run."""
    page.write_text(html(read(log)), encoding="utf-8")


def html(run: Run) -> str:
    """The whole page."""
    start, ticks = run.start, run.of("tick")
    title = f"{start['robot_id']}: {start['policy']} on {start['bus']}{' (dry run)' if start['dry_run'] else ''}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{escape(start['instruction'])}. Policy digest {escape(start['digest'][:16])}, wavserve "
        f"{escape(start['version'])}, {escape(start['when'])}.</p>",
        "<h2>Figures</h2>",
        _table((), rows(figures(run))),
        "<h2>Checks before the motion</h2>",
        _checks(run.of("check")),
        "<h2>Holds, faults, orders</h2>",
        _table(("s", "what", "details"), _events(run, ticks)),
        *_plots(run, ticks),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head><body>{''.join(parts)}</body></html>"
    )


def _plots(run: Run, ticks: Sequence[Line]) -> Iterable[str]:
    if len(ticks) < 2:
        return
    t0, t1 = ticks[0]["at"], ticks[-1]["at"]
    marks = _marks(run, ticks, t0)
    yield (
        "<h2>Commands and measured joints</h2><p><span class='key' style='background:var(--command)'></span>command"
        "<span class='key' style='background:var(--measured)'></span>measured"
        "<span class='key' style='background:var(--hold);height:.9rem'></span>holds"
        "<span class='key' style='background:var(--seam);width:.1rem;height:.9rem'></span>new chunk"
        "<span class='key' style='background:var(--bad);width:.15rem;height:.9rem'></span>fault or emergency stop</p>"
        "<div class='grid'>"
    )
    for axis, (name, unit) in enumerate(zip(run.start["names"], run.start["units"], strict=True)):
        commands = [(tick["at"] - t0, tick["command"][axis]) for tick in ticks if tick["command"]]
        measured = [(tick["at"] - t0, tick["measured"][axis]) for tick in ticks if tick["measured"]]
        yield _figure(f"{name} in {unit}", t1 - t0, [("measured", measured), ("command", commands)], marks)
    yield "</div><h2>Control loop</h2><div class='grid'>"
    times = [tick["at"] - t0 for tick in ticks]
    periods = [(b, (b - a) * 1e3) for a, b in itertools.pairwise(times)]
    yield _figure("period in ms", t1 - t0, [("period", periods)], marks)
    seams = [(tick["at"] - t0, tick["seam"] * 100) for tick in ticks if tick["seam"] is not None]
    yield _figure("seam jump in % of the axis's range", t1 - t0, [("period", seams)], marks)
    yield "</div>"


def _marks(run: Run, ticks: Sequence[Line], t0: float) -> list[Mark]:
    """Holds, new chunks, faults."""
    found: list[Mark] = []
    began: float | None = None
    for tick in ticks:
        holds = tick["command"] is not None and tick["source"] == "hold"
        if holds and began is None:
            began = tick["at"] - t0
        if not holds and began is not None:
            found.append(("hold", began, tick["at"] - t0))
            began = None
        if tick["seam"] is not None:
            found.append(("seam", tick["at"] - t0, tick["at"] - t0))
    if began is not None:
        found.append(("hold", began, ticks[-1]["at"] - t0))
    return found + [("fault", line["t"] - t0, line["t"] - t0) for line in run.of("fault", "emergency_stop")]


def _figure(title: str, duration_s: float, lines: Sequence[tuple[str, Sequence[Point]]], marks: Sequence[Mark]) -> str:
    values = [value for _, points in lines for _, value in points] or [0.0]
    low, high = min(values), max(values)
    room = (high - low) * 0.08 or max(abs(high) * 0.1, 1e-3)
    frame = Frame(0.0, max(duration_s, 1e-3), low - room, high + room)
    parts = [_mark(frame, *mark) for mark in marks]
    for i in range(4):
        value = frame.low + (frame.high - frame.low) * i / 3
        y = frame.y(value)
        parts.append(f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.4g}</text>')
    for second in _seconds(duration_s):
        parts.append(f'<text x="{frame.x(second):.1f}" y="{HEIGHT - 6}" text-anchor="middle">{second:g} s</text>')
    for kind, points in lines:
        drawn = " ".join(f"{frame.x(t):.1f},{frame.y(value):.1f}" for t, value in thinned(points))
        parts.append(f'<polyline class="{kind}" points="{drawn}"/>')
    label = escape(title)
    drawing = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
    return f"<figure>{drawing}<figcaption>{label}</figcaption></figure>"


def _mark(frame: Frame, kind: str, begin: float, end: float) -> str:
    x, top, bottom = frame.x(begin), TOP, HEIGHT - BOTTOM
    if kind == "hold":
        width = max(frame.x(end) - x, 0.5)
        return f'<rect class="hold" x="{x:.1f}" y="{top}" width="{width:.1f}" height="{bottom - top}"/>'
    height = 6 if kind == "seam" else bottom - top
    return f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom - height}" y2="{bottom}"/>'


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


def _seconds(duration_s: float) -> Iterable[float]:
    """About six round numbers."""
    power = 10 ** math.floor(math.log10(max(duration_s, 1e-3) / 6))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power * 6.5 >= duration_s)
    return [round(i * step, 6) for i in range(int(duration_s / step) + 1)]


def _events(run: Run, ticks: Sequence[Line]) -> list[tuple[str, str, str]]:
    t0 = ticks[0]["at"] if ticks else run.start["t"]
    kinds = (
        "order",
        "armed",
        "enabled",
        "refused",
        "hold",
        "fault",
        "emergency_stop",
        "recovered",
        "link",
        "log_dropped",
    )
    shown = []
    for line in run.of(*kinds):
        kind = "hold ends" if line["kind"] == "hold" and not line["why"] else line["kind"].replace("_", " ")
        details = {key: value for key, value in line.items() if key not in {"t", "kind", "pose", "step"}}
        text = ", ".join(f"{key} {_text(value)}" for key, value in details.items() if value not in ("", None))
        shown.append((f"{line['t'] - t0:.2f}", kind, text))
    return shown or [("", "none", "")]


def _text(value: Any) -> str:
    return "; ".join(map(str, value)) if isinstance(value, list) else str(value)


def _checks(checks: Sequence[Line]) -> str:
    cells = "".join(
        f"<tr><td>{escape(check['subject'])}</td><td>{escape(check['name'])}</td><td>{escape(check['expected'])}</td>"
        f"<td{'' if check['is_ok'] else ' class=no'}>{escape(check['actual'])}</td></tr>"
        for check in checks
    )
    return (
        f"<div class=wide><table><tr><th>of</th><th>check</th><th>expected</th><th>found</th></tr>{cells}</table></div>"
    )


def _table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in line)}</tr>" for line in lines)
    return f"<div class=wide><table>{f'<tr>{head}</tr>' if head else ''}{body}</table></div>"
