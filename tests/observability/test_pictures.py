"""The docs' pictures of the dashboards show every panel, and a drawing shows what a query returned."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET

import httpx
import pytest

from deploy.grafana.drawing import Line, picture
from deploy.grafana.panels import BOARDS, Board, Panel
from deploy.grafana.pictures import FOLDER, lines_of

MAX_BYTES = 150_000
SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: str) -> list[str]:
    return [each.text or "" for each in ET.fromstring(svg).iter(f"{SVG}text")]


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_the_docs_have_a_picture_of_each_dashboard_with_all_of_its_panels(board: Board) -> None:
    svg = (FOLDER / f"dashboard-{board.name}.svg").read_text(encoding="utf-8")
    assert len(svg) < MAX_BYTES
    shown = {text.partition(", ")[0] for text in texts(svg)}
    assert {panel.title.partition(", ")[0] for row in board.rows.values() for panel in row} | set(board.rows) <= shown
    assert "<polyline" in svg


def test_a_drawing_scales_values_leaves_gaps_and_names_its_lines() -> None:
    board = Board("one", "One", {"Row": (Panel("Time", "s", "", {}), Panel("Nothing", "ops", "", {}))})
    points = [(0.0, 0.010), (1.0, 0.020), (2.0, math.nan), (3.0, 0.030), (4.0, 0.030)]
    svg = picture(board, {"Time": [Line("p<50", points)], "Nothing": []}, 4.0, "ours")
    shown = texts(svg)
    assert {"Row", "Time, ms", "Nothing", "nothing of this happened in the run", "p<50", "30", "ours"} <= set(shown)
    lines = re.findall(r'<polyline class="c0 d0" points="([^"]*)"', svg)
    assert [len(line.split()) for line in lines] == [2, 2, 2]  # before the gap, after it, and in the legend


def test_a_panel_asks_for_its_queries_and_names_the_lines_by_their_labels() -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.params["query"])
        series = {"metric": {"verb": "score"}, "values": [[100, "1"], [101, "2"], [104, "NaN"]]}
        return httpx.Response(200, json={"status": "success", "data": {"result": [series]}})

    panel = Panel("Calls", "ops", "", {"{{verb}} {{gone}}": "rate(x[$__rate_interval])"})
    with httpx.Client(base_url="http://prometheus", transport=httpx.MockTransport(answer)) as client:
        [line] = lines_of(client, panel, (100.0, 110.0), "15s")
    assert asked == ["rate(x[15s])"]
    assert line.legend == "score"
    assert [x for x, _ in line.points] == [0.0, 1.0, 2.0, 4.0]
    assert [math.isnan(y) for _, y in line.points] == [False, False, True, True]
