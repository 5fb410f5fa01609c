"""A run's log as one HTML page that needs no network: figures, holds and faults, commands against measured joints.

The drawings are inline SVG. Knows no arm and no service.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from wavserve.clients.pages import Bad, document, legend, table
from wavserve.clients.piper.figures import Line, Run, figures, read, rows
from wavserve.core.charts import TOP, Frame, Point, around, figure, polyline, round_numbers, rules, ticks

STYLE = """
:root { --command: var(--first); --measured: #f59e0b; --hold: #94a3b833; --seam: #64748b; }
@media (prefers-color-scheme: dark) { :root { --measured: #fbbf24; --hold: #94a3b82e; --seam: #94a3b8; } }
.command, .period { stroke: var(--command); } .measured { stroke: var(--measured); stroke-width: 3; }
.hold { fill: var(--hold); } .fault { stroke: var(--bad); stroke-width: 1.5; } .seam { stroke: var(--seam); }
"""

KEYS = (
    ("command", "command", ""),
    ("measured", "measured", ""),
    ("hold", "holds", "height:.9rem"),
    ("seam", "new chunk", "width:.1rem;height:.9rem"),
    ("bad", "fault or emergency stop", "width:.15rem;height:.9rem"),
)

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
        table((), rows(figures(run))),
        "<h2>Checks before the motion</h2>",
        _checks(run.of("check")),
        "<h2>Holds, faults, orders</h2>",
        table(("s", "what", "details"), _events(run, ticks)),
        *_plots(run, ticks),
    ]
    return document(title, parts, STYLE)


def _plots(run: Run, ticks: Sequence[Line]) -> Iterable[str]:
    if len(ticks) < 2:
        return
    t0, t1 = ticks[0]["at"], ticks[-1]["at"]
    marks = _marks(run, ticks, t0)
    yield f"<h2>Commands and measured joints</h2>{legend(KEYS)}<div class='grid'>"
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
    low, high = around(value for _, points in lines for _, value in points)
    frame = Frame(0.0, max(duration_s, 1e-3), low, high)
    parts = [_mark(frame, *mark) for mark in marks]
    parts += [rules(frame), ticks(frame, round_numbers(duration_s), " s")]
    return figure(frame, title, parts + [polyline(kind, frame, points) for kind, points in lines])


def _mark(frame: Frame, kind: str, begin: float, end: float) -> str:
    x, top, bottom = frame.x(begin), TOP, frame.floor
    if kind == "hold":
        width = max(frame.x(end) - x, 0.5)
        return f'<rect class="hold" x="{x:.1f}" y="{top}" width="{width:.1f}" height="{bottom - top}"/>'
    height = 6 if kind == "seam" else bottom - top
    return f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom - height}" y2="{bottom}"/>'


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
    lines = (
        (
            check["subject"],
            check["name"],
            check["expected"],
            check["actual"] if check["is_ok"] else Bad(check["actual"]),
        )
        for check in checks
    )
    return table(("of", "check", "expected", "found"), lines)
