"""A run as one HTML page that needs no network: the aims, figures of each phase, and plots."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from loadtest.aims import COLUMNS, cells
from loadtest.robots.event_log import EventLog
from loadtest.robots.plots import PLOTS

STYLE = """
:root { color-scheme: light; --ink: #1d2530; --faint: #66707d; --rule: #e3e6ea; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: #fff; margin: 2rem auto; max-width: 74rem;
       padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; border-top: 1px solid var(--rule); padding-top: 1.2rem; }
p.note, figcaption { color: var(--faint); font-size: .85rem; } figure { margin: 0 0 1rem; }
table { border-collapse: collapse; font-size: .85rem; } td, th { padding: .25rem .7rem .25rem 0; text-align: left;
       vertical-align: top; border-bottom: 1px solid var(--rule); } td.no { color: #b91c1c; font-weight: 600; }
td.number { font-variant-numeric: tabular-nums; } .wide { overflow-x: auto; }
svg { max-width: max(100%, 40rem); height: auto; }
svg text { font-family: system-ui, sans-serif !important; } code { font-size: .85em; overflow-wrap: anywhere; }
"""

PHASE_COLUMNS = (
    "phase",
    "robots",
    "s",
    "requests/s",
    "answers/s",
    "p50 ms",
    "p99 ms",
    "refused",
    "missed",
    "stalls",
    "stalled s",
    "Jain",
    "healthz p99 ms",
    "MB/min",
)


def page(run: Mapping[str, Any], log: EventLog) -> str:
    """The whole page. `run` holds the results of the event log."""
    scenario, service = run["scenario"], run["service"]
    intro = (
        f"<p>{escape(scenario['about'])}</p><p class='note'>Policy <code>{escape(service['name'])}</code>, digest "
        f"<code>{escape(service['digest'][:16])}</code>; wavserve {escape(run['versions']['wavserve'])}, torch "
        f"{escape(run['versions']['torch'])}, Python {escape(run['versions']['python'])}; "
        f"{run['machine']['cores']} cores, {escape(run['machine']['system'])}. "
        f"<code>python -m loadtest.load {escape(run['command'])}</code></p>"
    )
    body = [
        f"<h1>Load test: {'every aim is met' if run['ok'] else 'an aim is not met'}</h1>{intro}",
        f"<h2>Aims</h2>{_table(COLUMNS, map(cells, run['aims']))}",
        f"<h2>Phases</h2>{_table(PHASE_COLUMNS, map(_phase, run['phases']))}",
        *_plots(log),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><title>wavserve load test</title>'
        f"<style>{STYLE}</style></head><body>{''.join(body)}</body></html>"
    )


def _plots(log: EventLog) -> Iterable[str]:
    if not log.phases:
        return
    for title, (plot, caption) in PLOTS.items():
        drawing = f'<div class="wide">{plot(log)}</div>'
        yield f"<h2>{escape(title)}</h2><figure>{drawing}<figcaption>{escape(caption)}</figcaption></figure>"


def _phase(phase: Mapping[str, Any]) -> Sequence[object]:
    latency, health, memory = phase["latency_ms"] or {}, phase["healthz_ms"] or {}, phase["memory"] or {}
    return (
        phase["name"],
        ", ".join(f"{count} {name}" for name, count in phase["robots"].items()),
        round(phase["seconds"], 1),
        phase["requests_per_s"],
        phase["answered_per_s"],
        latency.get("p50", ""),
        latency.get("p99", ""),
        phase["requests"]["refused"],
        phase["requests"]["missed"],
        phase["stalls"]["count"],
        phase["stalls"]["seconds"],
        "" if phase["fairness"]["jain"] is None else round(phase["fairness"]["jain"], 3),
        health.get("p99", ""),
        memory.get("slope_mb_min", ""),
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    titles = "".join(f"<th>{escape(title)}</th>" for title in head)
    lines = ("".join(_cell(value) for value in row) for row in rows)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="wide"><table><tr>{titles}</tr>{body}</table></div>'


def _cell(value: object) -> str:
    kind = ' class="no"' if value == "NO" else ' class="number"' if isinstance(value, int | float) else ""
    return f"<td{kind}>{escape(str(value))}</td>"
