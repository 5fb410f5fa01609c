"""Metrics and log lines: the names, labels and units that a dashboard reads."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
from prometheus_client import generate_latest

from wavserve.system.log_lines import JsonLines, configure_logging
from wavserve.system.lookups import Lookups
from wavserve.system.telemetry import Metrics


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers = []  # the call under test must not close pytest's handlers
    yield root
    root.handlers, root.level = handlers, level


def sample(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_a_request_is_counted_and_timed_by_edge_and_outcome() -> None:
    metrics = Metrics()
    metrics.observe_request("http", "ok", 0.25)
    metrics.observe_request("http", "ok", 0.5)
    metrics.observe_request("grpc", "too-large", 0.001)
    assert sample(metrics, "wavserve_requests_total", edge="http", outcome="ok") == 2
    assert sample(metrics, "wavserve_request_seconds_sum", edge="http", outcome="ok") == 0.75
    assert sample(metrics, "wavserve_requests_total", edge="grpc", outcome="too-large") == 1


def test_a_plan_is_counted_with_iterations_deadline_and_stages() -> None:
    metrics = Metrics()
    metrics.plans.answered(3, "met", {"imagine": 1.5})
    metrics.plans.answered(0, "met_degraded", {})
    metrics.plans.missed({"imagine": 4.0})
    assert sample(metrics, "wavserve_plan_iterations_sum") == 3
    assert sample(metrics, "wavserve_plan_iterations_count") == 2
    assert sample(metrics, "wavserve_plans_total", deadline="met_degraded") == 1
    assert sample(metrics, "wavserve_plan_stage_seconds_sum", stage="imagine", deadline="met") == 1.5
    assert sample(metrics, "wavserve_plan_stage_seconds_sum", stage="imagine", deadline="missed") == 4.0
    assert sample(metrics, "wavserve_plans_total", deadline="missed") == 1


def test_a_refusal_is_counted_by_reason_and_is_a_plan_that_was_refused() -> None:
    metrics = Metrics()
    assert sample(metrics, "wavserve_plans_total", deadline="refused") == 0, "a rate needs the zero before the first"
    metrics.plans.refused("bytes")
    metrics.plans.refused("deadline")
    assert sample(metrics, "wavserve_refused_plans_total", reason="bytes") == 1
    assert sample(metrics, "wavserve_plans_total", deadline="refused") == 2


def test_planning_reports_its_gain_and_the_spread_that_is_left() -> None:
    metrics = Metrics()
    metrics.plans.planned(0.25, 0.5)
    metrics.plans.planned(-0.25, 0.75)
    assert sample(metrics, "wavserve_planning_gain_bucket", le="0.0") == 1
    assert sample(metrics, "wavserve_planning_gain_bucket", le="+Inf") == 2
    assert sample(metrics, "wavserve_planning_std_sum") == 1.25


def test_lookups_repairs_and_the_build_are_told() -> None:
    metrics = Metrics()
    metrics.calls.looked_up("instruction", "redis", True)
    metrics.calls.model("embedded", "encoder", up=False)
    metrics.calls.repaired("embedded", "server")
    metrics.observe_lag(0.5)
    metrics.describe_build({"version": "0.1.0", "policy": "tiny"})
    metrics.watch_memory({"model_weights_bytes": lambda: 5.0})
    metrics.read_watched()
    assert sample(metrics, "wavserve_cache_lookups_total", cache="instruction", where="redis", result="hit") == 1
    assert sample(metrics, "wavserve_repairs_total", device="embedded", part="encoder") == 0
    assert sample(metrics, "wavserve_repairs_total", device="embedded", part="server") == 1
    assert sample(metrics, "wavserve_event_loop_lag_seconds_sum") == 0.5
    assert sample(metrics, "wavserve_build_info", version="0.1.0", policy="tiny") == 1
    assert sample(metrics, "wavserve_model_weights_bytes", model="all") == 5


def test_a_seam_is_observed_by_mode() -> None:
    metrics = Metrics()
    metrics.plans.seam("rtc_guided", 0.02)
    metrics.plans.seam("off", 0.5)
    assert sample(metrics, "wavserve_seam_jump_sum", mode="rtc_guided") == 0.02
    assert sample(metrics, "wavserve_seam_jump_count", mode="off") == 1


def test_a_plan_that_breaks_a_limit_is_counted_by_dimension_and_by_what_became_of_it() -> None:
    metrics = Metrics()
    metrics.plans.gated("cut", "velocity", "joint_2")
    metrics.plans.gated("refused", "velocity", "joint_2")
    metrics.plans.gated("refused", "velocity", "joint_2")
    for outcome, count in (("cut", 1), ("refused", 2)):
        labels = {"outcome": outcome, "limit": "velocity", "dimension": "joint_2"}
        assert sample(metrics, "wavserve_gated_plans_total", **labels) == count


def test_a_state_far_from_the_trainings_is_counted_by_dimension() -> None:
    metrics = Metrics()
    metrics.plans.unusual("joint_2")
    metrics.plans.unusual("joint_2")
    assert sample(metrics, "wavserve_unusual_states_total", dimension="joint_2") == 2


def test_a_call_is_counted_with_groups_rows_and_seconds_by_verb() -> None:
    metrics = Metrics()
    metrics.calls.called("score", 2, 10, 0.125)
    for name, value in (("groups", 2), ("rows", 10), ("seconds", 0.125)):
        assert sample(metrics, f"wavserve_call_{name}_sum", verb="score") == value


def test_gauges_are_read_at_the_scrape() -> None:
    metrics, queue = Metrics(), [1, 2]
    metrics.watch_queue(lambda: len(queue), lambda: 1.5)
    metrics.watch_arena(lambda: 3, lambda: 8)
    metrics.watch_sessions(lambda: 4)
    metrics.watch_plans(lambda: 5)
    metrics.watch_remaining(lambda: 0.25)
    metrics.watch_ready(lambda: True)
    queue.append(3)
    metrics.read_watched()
    names = (
        "queue_depth",
        "queue_age_seconds",
        "arena_slots_used",
        "arena_slots",
        "sessions",
        "plans_in_flight",
        "remaining_device_seconds",
        "ready",
    )
    assert [sample(metrics, f"wavserve_{name}") for name in names] == [3, 1.5, 3, 8, 4, 5, 0.25, 1]


def test_lookups_of_the_models_caches_are_counted_once() -> None:
    metrics, texts = Metrics(), Lookups(hit=2)
    metrics.watch_lookups({"text": texts})
    metrics.read_watched()
    texts.add(True)
    texts.add(False)
    metrics.read_watched()
    metrics.read_watched()
    for result, count in (("hit", 3), ("miss", 1)):
        labels = {"model": "all", "cache": "text", "result": result}
        assert sample(metrics, "wavserve_model_cache_lookups_total", **labels) == count


def test_two_servers_share_no_values_and_every_name_has_our_prefix() -> None:
    one, other = Metrics(), Metrics()
    one.plans.answered(1, "none", {})
    assert sample(other, "wavserve_plan_iterations_count") == 0
    families = [line.split()[2] for line in generate_latest(one.registry).decode().splitlines() if "# HELP" in line]
    assert families
    assert all(name.startswith("wavserve_") for name in families)


def test_json_lines_hold_message_extras_and_traceback(root_logger: logging.Logger) -> None:
    stream = io.StringIO()
    configure_logging("info", "json", stream)
    log = logging.getLogger("wavserve.test")
    log.debug("not written")
    log.info("plan %d", 7, extra={"session": "a"})
    try:
        raise ValueError("boom")
    except ValueError:
        log.exception("failed")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first["message"] == "plan 7"
    assert (first["level"], first["logger"], first["session"]) == ("info", "wavserve.test", "a")
    assert first["time"].endswith("+00:00")
    assert "ValueError: boom" in second["traceback"]
    assert root_logger.level == logging.INFO


def test_text_lines_are_readable(root_logger: logging.Logger) -> None:
    stream = io.StringIO()
    configure_logging("warning", "text", stream)
    logging.getLogger("wavserve.test").warning("slow")
    assert "WARNING wavserve.test: slow" in stream.getvalue()
    assert root_logger.handlers[0].formatter.__class__ is not JsonLines


def test_the_metrics_of_a_device_that_has_left_end_and_those_of_the_others_stay() -> None:
    metrics = Metrics()
    for device in ("10.0.0.1:8001", "10.0.0.2:8001"):
        metrics.calls.model(device, "encoder", True)
        metrics.calls.repaired(device, "encoder")
    metrics.calls.forget("10.0.0.1:8001")
    shown = generate_latest(metrics.registry).decode()
    assert "10.0.0.1:8001" not in shown
    assert sample(metrics, "wavserve_model_up", device="10.0.0.2:8001", model="encoder") == 1
    assert sample(metrics, "wavserve_repairs_total", device="10.0.0.2:8001", part="encoder") == 1
    metrics.calls.forget("10.0.0.1:8001")


def test_a_look_up_of_a_name_is_counted() -> None:
    metrics = Metrics()
    metrics.calls.resolved("empty")
    assert sample(metrics, "wavserve_name_lookups_total", outcome="empty") == 1
