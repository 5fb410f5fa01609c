"""The operator's Prometheus gets the rules and Grafana the dashboards that deploy/ has, none left out."""

from __future__ import annotations

import yaml

from deploy.kubernetes import rules
from tests.deploy.overlays import ROOT, Overlay
from tests.deploy.test_compose import PROMETHEUS

BOARDS = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "deploy/grafana/dashboards").glob("*.json")}


def test_the_operators_rules_are_fresh() -> None:
    assert rules.OBJECT.read_text(encoding="utf-8") == rules.document(), "run make dashboards"


def test_the_overlays_with_gpus_are_scraped(overlay: Overlay) -> None:
    assert bool(overlay.of("ServiceMonitor")) == (overlay.name in {"gpu", "gpu-ha"})


def test_an_overlay_that_is_scraped_has_all_rules(overlay: Overlay) -> None:
    if overlay.of("ServiceMonitor"):
        [made] = overlay.of("PrometheusRule")
        assert made["spec"] == yaml.safe_load(rules.RULES.read_text(encoding="utf-8"))


def test_an_overlay_that_is_scraped_has_all_dashboards(overlay: Overlay) -> None:
    if overlay.of("ServiceMonitor"):
        shown = [each for each in overlay.of("ConfigMap") if "grafana_dashboard" in each["metadata"].get("labels", {})]
        assert {name: text for each in shown for name, text in each["data"].items()} == BOARDS


def test_compose_has_the_rules_and_the_dashboards() -> None:
    assert [ROOT / "deploy/prometheus" / name for name in PROMETHEUS["rule_files"]] == [rules.RULES]
    [provider] = yaml.safe_load((ROOT / "deploy/grafana/provisioning/dashboards/wavserve.yaml").read_text())[
        "providers"
    ]
    assert provider["options"]["path"].endswith("/dashboards")
    assert BOARDS
