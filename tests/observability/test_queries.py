"""Dashboards, rules and docs name the metrics that exist, and none is left out of the docs."""

from __future__ import annotations

import re

import pytest

from deploy.grafana import generate
from deploy.grafana.panels import BOARDS, Board
from tests.observability.queries import DASHBOARDS, GPU, ROOT, full_metrics, names_in, panel_queries, rules, series_of

LABELS = {
    "edge", "outcome", "deadline", "reason", "stage", "limit", "dimension", "mode", "verb", "direction", "cache",
    "where", "result", "device", "part", "model", "operation", "version", "le",
}  # fmt: skip
"""every label there is: none holds a robot, a session, an instruction or a chunk"""


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_a_dashboard_is_fresh(board: Board) -> None:
    written = (DASHBOARDS / f"{board.name}.json").read_text(encoding="utf-8")
    assert written == generate.document(board), "run `make dashboards`"


def test_there_is_no_other_dashboard() -> None:
    assert {path.stem for path in DASHBOARDS.iterdir()} == {board.name for board in BOARDS}


def test_every_metric_of_a_panel_and_of_a_rule_exists() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    known = series_of(full_metrics().registry) | recorded | names_in(GPU.read_text(encoding="utf-8"))
    queries = [*panel_queries(), *((rule.get("alert", "record"), rule["expr"]) for rule in rules())]
    assert len(queries) > 50
    for where, query in queries:
        assert names_in(query) <= known, where
        assert names_in(query), where


def test_no_label_names_a_robot_a_session_an_instruction_or_a_chunk() -> None:
    families = full_metrics().registry._collector_to_names
    assert {label for each in families for label in getattr(each, "_labelnames", ())} <= LABELS


def test_the_docs_list_every_metric_and_no_other() -> None:
    text = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"`(wavserve_[a-z_]+)`", text))
    names = {
        family.name + {"counter": "_total", "info": "_info"}.get(family.type, "")
        for family in full_metrics().registry.collect()
    }
    assert listed == names


def test_every_alert_has_a_severity_and_a_section_of_the_runbook() -> None:
    text = (ROOT / "docs/runbook.md").read_text(encoding="utf-8")
    sections = {f"docs/runbook.md#{title.lower()}" for title in re.findall(r"^## (\w+)$", text, re.MULTILINE)}
    alerts = [rule for rule in rules() if "alert" in rule]
    assert {alert["annotations"]["runbook"] for alert in alerts} == sections
    assert all(alert["annotations"]["runbook"].endswith(f"#{alert['alert'].lower()}") for alert in alerts)
    assert {alert["labels"]["severity"] for alert in alerts} == {"page", "ticket"}
