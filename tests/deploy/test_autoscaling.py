"""The autoscaler scales the gateways by a metric that the adapter makes of one that a gateway has."""

from __future__ import annotations

import re

import yaml
from prometheus_client import generate_latest

from tests.deploy.overlays import KUBERNETES, Overlay
from wavserve.app.settings import Settings
from wavserve.app.settings_sources import load_settings
from wavserve.system.telemetry import Metrics

AUTOSCALING = KUBERNETES / "components/autoscaling"
[RULE] = yaml.safe_load((AUTOSCALING / "adapter-values.yaml").read_text())["rules"]["custom"]


def test_the_overlay_for_availability_is_scaled(overlay: Overlay) -> None:
    scaled = {each["spec"]["scaleTargetRef"]["name"] for each in overlay.of("HorizontalPodAutoscaler")}
    assert scaled == ({"gateway"} if overlay.name == "gpu-ha" else set())


def test_gateways_that_are_scaled_share_their_sessions_and_have_no_number_of_their_own(overlay: Overlay) -> None:
    for each in overlay.of("HorizontalPodAutoscaler"):
        reference = each["spec"]["scaleTargetRef"]
        target = overlay.named(reference["kind"], reference["name"])
        assert target["apiVersion"] == reference["apiVersion"]
        assert "replicas" not in target["spec"], "each apply would set it back"
        assert overlay.environment(overlay.container("Deployment", "gateway"))["WAVSERVE_SESSIONS__URL_FILE"]


def test_the_autoscaler_asks_for_the_adapters_metric(overlay: Overlay) -> None:
    for each in overlay.of("HorizontalPodAutoscaler"):
        names = [metric["pods"]["metric"]["name"] for metric in each["spec"]["metrics"]]
        assert names == [RULE["name"]["as"]]


def test_the_adapter_reads_a_series_that_a_gateway_has() -> None:
    series, labels = RULE["seriesQuery"].split("{")
    metrics = Metrics()
    metrics.observe_lag(0.01)
    shown = {line.partition("{")[0] for line in generate_latest(metrics.registry).decode().splitlines()}
    assert series in shown
    assert re.fullmatch(RULE["name"]["matches"], series)
    assert {label.partition("!")[0] for label in labels.rstrip("}").split(",")} == RULE["resources"]["overrides"].keys()
    assert set(re.findall(r"<<\.(\w+)>>", RULE["metricsQuery"])) == {"GroupBy", "Series", "LabelMatchers"}


def test_where_there_are_several_gateways_none_holds_plans_up_for_a_repair(overlay: Overlay) -> None:
    gateway = overlay.named("Deployment", "gateway")
    settings = load_settings(None, overlay.environment(overlay.container("Deployment", "gateway"))).settings
    is_alone = gateway["spec"].get("replicas") == 1
    assert settings.limits.repair_s == (Settings().limits.repair_s if is_alone else 1.0)
