"""A run as one HTML page that needs no network: verdicts, figures of each phase, plots.

Called by `load.py` with the results and the journal they came from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from loadtest.robots.journal import Journal
from loadtest.robots.plots import PLOTS

STYLE = """
:root { color-scheme: light; --ink: #1d2530; --faint: #66707d; --rule: #e3e6ea; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: #fff; margin: 2rem auto; max-width: 74rem;
       padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; border-top: 1px solid var(--rule); padding-top: 1.2rem; }
p.note, figcaption { color: var(--faint); font-size: .85rem; } figure { margin: 0 0 1rem; }
table { border-collapse: collapse; font-size: .85rem; } td, th { padding: .25rem .7rem .25rem 0; text-align: left;
       vertical-align: top; border-bottom: 1px solid var(--rule); } td.no { color: #b91c1c; font-weight: 600; }
td.number { font-variant-numeric: tabular-nums; } svg { max-width: 100%; height: auto; }
svg text { font-family: system-ui, sans-serif !important; } code { font-size: .85em; overflow-wrap: anywhere; }
"""

PHASE_COLUMNS = (
    "phase",
    "robots",
    "s",
    "asks/s",
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


def page(told: Mapping[str, Any], journal: Journal) -> str:
    """The whole page. `told` is what `results` made of the journal."""
    scenario, service = told["scenario"], told["service"]
    intro = (
        f"<p>{escape(scenario['about'])}</p><p class='note'>Policy <code>{escape(service['name'])}</code>, digest "
        f"<code>{escape(service['digest'][:16])}</code>; wavserve {escape(told['versions']['wavserve'])}, torch "
        f"{escape(told['versions']['torch'])}, Python {escape(told['versions']['python'])}; "
        f"{told['machine']['cores']} cores, {escape(told['machine']['system'])}. "
        f"<code>load.py {escape(told['command'])}</code></p>"
    )
    rows = [(v["criterion"], v["aim"], v["seen"], "yes" if v["ok"] else "NO") for v in told["verdicts"]]
    body = [
        f"<h1>Load test: {'every criterion is met' if told['ok'] else 'a criterion is not met'}</h1>{intro}",
        f"<h2>Verdicts</h2>{_table(('criterion', 'aim', 'seen', 'ok'), rows)}",
        f"<h2>Phases</h2>{_table(PHASE_COLUMNS, map(_phase, told['phases']))}",
        *_plots(journal),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>wavserve load test</title>'
        f"<style>{STYLE}</style></head><body>{''.join(body)}</body></html>"
    )


def _plots(journal: Journal) -> Iterable[str]:
    if not journal.spans:
        return
    for title, (plot, caption) in PLOTS.items():
        yield f"<h2>{escape(title)}</h2><figure>{plot(journal)}<figcaption>{escape(caption)}</figcaption></figure>"


def _phase(phase: Mapping[str, Any]) -> Sequence[object]:
    latency, health, memory = phase["latency_ms"] or {}, phase["healthz_ms"] or {}, phase["memory"] or {}
    return (
        phase["name"],
        ", ".join(f"{count} {name}" for name, count in phase["robots"].items()),
        round(phase["seconds"], 1),
        phase["asks_per_s"],
        phase["answered_per_s"],
        latency.get("p50", ""),
        latency.get("p99", ""),
        phase["asks"]["refused"],
        phase["asks"]["missed"],
        phase["stalls"]["count"],
        phase["stalls"]["seconds"],
        "" if phase["fairness"]["jain"] is None else round(phase["fairness"]["jain"], 3),
        health.get("p99", ""),
        memory.get("slope_mb_min", ""),
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    titles = "".join(f"<th>{escape(title)}</th>" for title in head)
    lines = ("".join(_cell(value) for value in row) for row in rows)
    return f"<table><tr>{titles}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _cell(value: object) -> str:
    kind = ' class="no"' if value == "NO" else ' class="number"' if isinstance(value, int | float) else ""
    return f"<td{kind}>{escape(str(value))}</td>"
