"""The page of a made-up run: every plot, every aim, and nothing from a network."""

from __future__ import annotations

import json
import re
from html import escape

from loadtest.robots import criteria, scenario
from loadtest.robots.chunks import Stall
from loadtest.robots.event_log import EventLog, StallRecord
from loadtest.robots.page import page
from loadtest.robots.plots import PLOTS
from loadtest.robots.probes import scrape
from loadtest.robots.results import results
from tests.loadtest.robots.rig import overload_run

ABOUT = {"service": {"name": "tiny", "digest": "0" * 64}, "command": "overload --set <a>&b"}


def results_and_page(log: EventLog) -> tuple[dict[str, object], str]:
    chosen = scenario.load(scenario.find("overload"))
    found = results(chosen, log, criteria.evaluate(chosen, log), ABOUT)
    return found, page(found, log)


def test_the_page_has_every_plot_and_aim() -> None:
    log = overload_run()
    log.stalls.append(StallRecord("overload", "grpc", "grpc-0", Stall(120.0, 0.5)))
    _, shown = results_and_page(log)
    assert shown.count("<svg") == len(PLOTS) == 10
    for title in PLOTS:
        assert f"<h2>{title}</h2>" in shown
    aims = criteria.evaluate(scenario.load(scenario.find("overload")), log)
    for aim in aims:
        assert f"<td>{escape(aim['name'])}</td>" in shown
    assert shown.count("<td>yes</td>") == len(aims)
    assert "every aim is met" in shown
    assert "&lt;a&gt;&amp;b" in shown
    names = re.findall(r'aria-label="([^"]+)"', shown)
    assert {"latency by stage", "K spent", "fairness among robots", "stalls of robots"} <= set(names)


def test_the_page_needs_no_network() -> None:
    _, shown = results_and_page(overload_run())
    addresses = set(re.findall(r"https?://[^\s\"'<>]+", shown))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}, (
        "XML namespaces, which no browser fetches"
    )
    assert not re.search(r"<script|<link|<iframe|@import", shown)


def test_results_are_json_with_the_figures_of_each_phase() -> None:
    found, _ = results_and_page(overload_run())
    read = json.loads(json.dumps(found, allow_nan=False))
    by_name = {phase["name"]: phase for phase in read["phases"]}
    overload = by_name["overload"]
    assert overload["requests"] == {"answered": 240, "refused": 480, "missed": 0, "failed": 0, "lost": 0}
    assert overload["latency_ms"]["p50"] == 1000.0
    assert overload["refusal_ms"]["p99"] == 8.0
    assert overload["iterations"] == {"3": 240}
    assert overload["deadlines"]["met"] == 240
    assert by_name["lone"]["fairness"]["jain"] == 1.0
    assert read["ok"] is True
    assert [aim["met"] for aim in read["aims"]] == [True] * 11
    assert read["series"]["service"][0] == {"s": 1.0, "queue": 2.0, "plans": 4.0, "groups": 3.0}


def test_a_run_without_events_still_has_a_page() -> None:
    chosen = scenario.load(scenario.find("smoke"))
    log = EventLog()
    shown = page(results(chosen, log, criteria.evaluate(chosen, log), ABOUT), log)
    assert "<h2>Aims</h2>" in shown


def test_the_metrics_are_parsed() -> None:
    text = "\n".join(
        [
            "# TYPE wavserve_queue_depth gauge",
            "wavserve_queue_depth 3.0",
            "# TYPE wavserve_plans_in_flight gauge",
            "wavserve_plans_in_flight 2.0",
            "# TYPE wavserve_call_groups histogram",
            'wavserve_call_groups_bucket{le="1.0",verb="score"} 4.0',
            'wavserve_call_groups_count{verb="score"} 5.0',
            'wavserve_call_groups_sum{verb="score"} 9.0',
            "",
        ]
    )
    read = scrape(text, 7.0)
    assert (read.at, read.queue_depth, read.in_flight) == (7.0, 3.0, 2.0)
    assert (read.call_count, read.call_groups) == ({"score": 5.0}, {"score": 9.0})
