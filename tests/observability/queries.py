"""The queries of every dashboard and of every rule, and the names of the metrics in them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from prometheus_client import CollectorRegistry

from wavserve.system.lookups import Lookups
from wavserve.system.memory import MEMORY
from wavserve.system.telemetry import Metrics

ROOT = Path(__file__).parents[2]
DASHBOARDS = ROOT / "deploy/grafana/dashboards"
RULES = ROOT / "deploy/prometheus/rules.yml"
GPU = Path(__file__).parent / "triton_gpu.txt"
"""what a Triton with a GPU shows: written by hand after Triton's documentation, not recorded"""


def panel_queries() -> Iterator[tuple[str, str]]:
    """(panel, query), with `$__rate_interval` as Grafana would fill it in."""
    for path in sorted(DASHBOARDS.glob("*.json")):
        for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]:
            for target in panel.get("targets", []):
                yield f"{path.stem}: {panel['title']}", target["expr"].replace("$__rate_interval", "1m")


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def names_in(query: str) -> set[str]:
    return set(re.findall(r"\b(?:wavserve|nv)[a-z0-9_:]+", query))


def full_metrics() -> Metrics:
    """A registry with every metric that a gateway may show."""
    metrics = Metrics()
    metrics.describe_build({"version": "0"})
    metrics.watch_queue(float, float)
    metrics.watch_remaining(float)
    metrics.watch_arena(float, float)
    metrics.watch_sessions(float)
    metrics.watch_robots(float)
    metrics.watch_ready(float)
    metrics.watch_plans(float)
    metrics.watch_memory(dict.fromkeys(MEMORY, float))
    metrics.watch_lookups({"text": Lookups()})
    return metrics


def series_of(registry: CollectorRegistry) -> set[str]:
    """The names of all series of a registry."""
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",), "info": ("_info",)}
    return {f"{family.name}{suffix}" for family in registry.collect() for suffix in suffixes[family.type]}
