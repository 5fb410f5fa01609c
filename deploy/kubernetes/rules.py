"""Writes Prometheus' rules as an object of the Prometheus operator: `make dashboards`. A test holds the file fresh."""

from __future__ import annotations

from pathlib import Path

import yaml

FOLDER = Path(__file__).parent
RULES = FOLDER.parent / "prometheus/rules.yml"
OBJECT = FOLDER / "components/monitoring/prometheus-rule.yaml"
_HEAD = "# Made of deploy/prometheus/rules.yml by `make dashboards`.\n"


def document() -> str:
    """The object, as YAML."""
    made = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "wavserve"},
        "spec": yaml.safe_load(RULES.read_text(encoding="utf-8")),
    }
    return _HEAD + yaml.safe_dump(made, sort_keys=False, width=120)


if __name__ == "__main__":
    OBJECT.write_text(document(), encoding="utf-8")
