"""`/metrics` in both formats, with the exemplars that lead from a slow plan to its trace."""

from __future__ import annotations

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.edge.served import Served

TRACE = "ab" * 16
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
PROMETHEUS = f"{OPENMETRICS}, text/plain;version=0.0.4;q=0.5,*/*;q=0.1"


@pytest.mark.parametrize("accept", [OPENMETRICS, PROMETHEUS])
def test_a_client_that_accepts_openmetrics_gets_exemplars(accept: str, served: Served, client: httpx.Client) -> None:
    served.metrics.plans.answered(3, "met", {"total": 0.2}, TRACE)
    answer = client.get("/metrics", headers={"accept": accept})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")
    [line] = [line for line in answer.text.splitlines() if "trace_id" in line]
    assert line.startswith('wavserve_plan_stage_seconds_bucket{deadline="met",le="0.25",stage="total"}')
    assert f'# {{trace_id="{TRACE}"}} 0.2' in line


def test_any_other_client_gets_the_text_format(served: Served, client: httpx.Client) -> None:
    served.metrics.plans.answered(3, "met", {"total": 0.2}, TRACE)
    for headers in ({}, {"accept": "text/plain"}):
        answer = client.get("/metrics", headers=headers)
        assert answer.headers["content-type"].startswith("text/plain")
        assert TRACE not in answer.text


def test_a_strict_parser_takes_every_metric(served: Served, client: httpx.Client) -> None:
    plans, control = served.metrics.plans, served.metrics.control
    for gain in (-0.5, 0.5):
        plans.planned(gain, 0.3)
    plans.answered(3, "met", {"total": 0.2}, TRACE)
    plans.seam("off", 0.1)
    plans.gated("cut", "velocity", 'a "name"')
    control.executed(1, 2, "starved")
    control.changed_chunk(0.2, 0.1)
    served.metrics.calls.called("score", 1, 2, 0.1)
    served.metrics.observe_lag(0.01)
    text = client.get("/metrics", headers={"accept": OPENMETRICS}).text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    gains = {
        sample.labels["le"]: sample.value for sample in families["wavserve_planning_gain"].samples if sample.labels
    }
    assert (gains["0.0"], gains["+Inf"]) == (1, 2)
