"""Pages that need no network: one document with its style inside, light and dark, from a phone's width on.

Knows no run and no drawing. Text that a caller hands in as cells or titles is escaped here; bodies are markup.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

STYLE = """
:root { color-scheme: light dark; --ink: #1d2530; --faint: #66707d; --rule: #e3e6ea; --page: #fff; --bad: #dc2626;
        --first: #1d4ed8; --second: #b45309; --third: #047857; --fourth: #7c3aed; --fifth: #be185d; --sixth: #475569; }
@media (prefers-color-scheme: dark) { :root { --ink: #e5e9ef; --faint: #9aa4b2; --rule: #2c3440; --page: #12161c;
        --bad: #f87171; --first: #7aa2ff; --second: #fbbf24; --third: #34d399; --fourth: #c4b5fd; --fifth: #f9a8d4;
        --sixth: #94a3b8; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); margin: 2rem auto;
       max-width: 74rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; border-top: 1px solid var(--rule); padding-top: 1.2rem; }
p, figcaption { color: var(--faint); } table { border-collapse: collapse; font-size: .9rem; }
td, th { padding: .25rem 1rem .25rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--rule); }
td { overflow-wrap: anywhere; } td.no { color: var(--bad); font-weight: 600; } .wide { overflow-x: auto; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 30rem), 1fr)); gap: 1rem; }
figure { margin: 0; } figcaption { font-size: .85rem; } svg { width: 100%; height: auto; }
svg text { font: 11px system-ui, sans-serif; fill: var(--faint); } .rule { stroke: var(--rule); }
svg polyline { fill: none; stroke-width: 1.4; }
@media (max-width: 40rem) { svg text { font-size: 16px; } }
.legend span { display: inline-block; margin-right: 1rem; }
.legend .key { width: 1.4rem; height: .2rem; vertical-align: middle; margin-right: .3rem; }
"""


@dataclass(frozen=True, slots=True)
class Bad:
    """A cell that says that something is wrong."""

    text: str


Cell = str | Bad


def document(title: str, body: Iterable[str], style: str = "") -> str:
    """The whole page. `body`: markup; `style`: rules of this kind of page."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
        f"<style>{STYLE}{style}</style></head><body>{''.join(body)}</body></html>"
    )


def table(header: Sequence[str], lines: Iterable[Sequence[Cell]]) -> str:
    """A table that scrolls where the screen is narrower. An empty header: none."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join(f"<tr>{''.join(map(_cell, line))}</tr>" for line in lines)
    return f"<div class=wide><table>{f'<tr>{head}</tr>' if head else ''}{body}</table></div>"


def legend(keys: Iterable[tuple[str, str, str]]) -> str:
    """What a drawing's colours stand for. A key is (colour of the style, words, CSS of its patch)."""
    patches = (
        f"<span><span class=key style='background:var(--{colour});{shape}'></span>{escape(words)}</span>"
        for colour, words, shape in keys
    )
    return f"<p class=legend>{''.join(patches)}</p>"


def _cell(cell: Cell) -> str:
    return f"<td class=no>{escape(cell.text)}</td>" if isinstance(cell, Bad) else f"<td>{escape(cell)}</td>"
