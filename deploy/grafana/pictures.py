"""Draws every dashboard from a Prometheus, by the panels' own queries, into `docs/images/dashboard-*.svg`.

    python -m deploy.grafana.pictures http://127.0.0.1:9090 --seconds 120

The drawing is ours and not Grafana's: it shows what the queries return.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from deploy.grafana.drawing import Line, picture
from deploy.grafana.panels import BOARDS, RATE, Panel

FOLDER = Path(__file__).parents[2] / "docs/images"
CAPTION = "Drawn by deploy/grafana/pictures.py from the panels' queries. Grafana draws the same data in another way."
POINTS = 120
"""of a line, at most"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prometheus", help="its URL")
    parser.add_argument("--seconds", type=float, default=600.0, help="how far back (default %(default)s)")
    parser.add_argument("--rate", default="15s", help="Grafana's $__rate_interval (default %(default)s)")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder (default docs/images)")
    args = parser.parse_args()
    with httpx.Client(base_url=args.prometheus, timeout=60, trust_env=False) as client:
        now = time.time()
        draw(client, (now - args.seconds, now), args.rate, args.out)


def draw(client: httpx.Client, during: tuple[float, float], rate: str, folder: Path, note: str = "") -> None:
    """Writes a picture of each dashboard. `during`: Unix times; `note`: what its foot adds.

    Raises httpx.HTTPError where a query is refused.
    """
    for board in BOARDS:
        panels = [panel for row in board.rows.values() for panel in row]
        lines = {panel.title: lines_of(client, panel, during, rate) for panel in panels}
        svg = picture(board, lines, during[1] - during[0], f"{CAPTION} {note}")
        (folder / f"dashboard-{board.name}.svg").write_text(svg, encoding="utf-8")


def lines_of(client: httpx.Client, panel: Panel, during: tuple[float, float], rate: str) -> list[Line]:
    """What a panel shows. `during`: Unix times."""
    begin, end = during
    step = max(1.0, (end - begin) / POINTS)
    found = []
    for legend, query in panel.queries.items():
        asked = {"query": query.replace(RATE, rate), "start": begin, "end": end, "step": step}
        answer = client.get("/api/v1/query_range", params=asked).raise_for_status().json()
        for series in answer["data"]["result"]:
            points = {float(at): float(value) for at, value in series["values"]}
            found.append(Line(named(legend, series["metric"]), _with_gaps(points, begin, step)))
    return found


def named(legend: str, labels: Mapping[str, Any]) -> str:
    """A legend, as Grafana fills it in."""
    return re.sub(r"{{(\w+)}}", lambda match: str(labels.get(match[1], "")), legend).strip()


def _with_gaps(points: Mapping[float, float], begin: float, step: float) -> list[tuple[float, float]]:
    """Points since `begin`, with a NaN wherever Prometheus left one out."""
    found: list[tuple[float, float]] = []
    for at, value in points.items():
        if found and at - begin - found[-1][0] > 1.5 * step:
            found.append((found[-1][0] + step, float("nan")))
        found.append((at - begin, value))
    return found


if __name__ == "__main__":
    main()
