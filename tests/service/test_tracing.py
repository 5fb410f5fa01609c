"""A plan's trace through the real service: from the robot's client through the gateway into a real Triton."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.collector import Collector, Seen, serving
from tests.service.rig import REPOSITORY, Server, observation, plan_command, start
from wavserve.backends.triton.wheel import find_obstacle
from wavserve.clients.plan_client import PlanClient
from wavserve.core import otel

OPTIONS = {"num_iterations": 2, "num_video_samples": 4, "num_value_samples": 2}
TRITON = "wavserve-triton"


@dataclass(frozen=True)
class Traced:
    server: Server
    collector: Collector


@pytest.fixture(scope="module", params=["local", "triton-embedded"])
def traced(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    if request.param == "triton-embedded" and (obstacle := find_obstacle(REPOSITORY)) is not None:
        pytest.skip(f"no real Triton on this machine: {obstacle}")
    with serving(Collector()) as collector:
        flags = ["--set", f"tracing.endpoint={collector.endpoint}", "--set", "log.plans=json"]
        server = start(tmp_path_factory.mktemp("traced"), request.param, *flags)
        yield Traced(server, collector)
        server.stop()


@pytest.mark.slow
def test_a_plan_is_one_trace_from_the_robot_to_its_models(traced: Traced) -> None:
    robot = otel.open_tracer(otel.Collector(traced.collector.endpoint), "robot")
    with PlanClient(traced.server.grpc, tracer=robot) as client:
        chunk = client.plan(observation(options=OPTIONS, deadline_ms=60_000))
    robot.close()
    spans = traced.collector.until(lambda spans: {"robot.plan", "gateway.plan"} <= names_of(chunk.chunk_id, spans))
    [root] = [span for span in spans if span.name == "robot.plan"]
    with_triton = traced.server.backend == "triton-embedded"
    spans = traced.collector.until(lambda spans: not with_triton or triton_calls(spans, root.trace_id))
    mine = {span.span_id: span for span in spans if span.trace_id == root.trace_id}

    def path(span: Seen) -> list[str]:
        return [*(path(mine[span.parent_id]) if span.parent_id in mine else []), span.name]

    paths = {" > ".join(path(span)) for span in mine.values()}
    plan = "robot.plan > gateway.plan > plan"
    assert {
        "robot.plan",
        "robot.plan > gateway.plan > session.load",
        f"{plan} > encode > encode_images > call encode_images",
        f"{plan} > iteration > imagine > call imagine",
        f"{plan} > iteration > score > call score",
        f"{plan} > final > decode > call decode",
        "robot.plan > gateway.plan > session.commit",
    } <= paths
    begun_here = {span.trace_id for span in spans if span.service != TRITON}
    if with_triton:
        in_triton = {path.partition(" > InferRequest > ")[::2] for path in paths if path.endswith(" > compute")}
        assert all(above.rpartition(" > ")[2].startswith("call ") for above, _ in in_triton), (
            "a request is part of a call"
        )
        assert {"video_dit > compute", "value_dit > compute"} <= {below for _, below in in_triton}
        assert {span.trace_id for span in spans if span.service == TRITON} <= begun_here, "test calls have no trace"
    lines = [json.loads(text) for text in traced.server.log.read_text().splitlines() if text.startswith("{")]
    [line] = [line for line in lines if line["trace_id"] == root.trace_id]
    assert (line["trace_id"], line["chunk"], line["iterations"]) == (root.trace_id, chunk.chunk_id, 2)
    assert line["device"] == ("embedded" if with_triton else "the device")
    everything = b"".join(traced.collector.bodies).decode(errors="replace") + json.dumps(line)
    assert observation().instruction not in everything


@pytest.mark.slow
def test_a_plan_of_the_command_line_is_one_trace_with_its_gateway(traced: Traced) -> None:
    command = plan_command(traced.server, "--json", f"--traces={traced.collector.endpoint}")
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    chunk_id = json.loads(done.stdout)["chunk_id"]
    spans = traced.collector.until(lambda spans: {"robot.plan", "gateway.plan"} <= names_of(chunk_id, spans))
    mine = {span.name: span for span in spans if span.attributes.get("wavserve.chunk") == chunk_id}
    robot, gateway = mine["robot.plan"], mine["gateway.plan"]
    assert (robot.service, gateway.service) == ("wavserve-plan", "wavserve")
    assert (gateway.trace_id, gateway.parent_id) == (robot.trace_id, robot.span_id)


@pytest.mark.slow
def test_a_slow_plan_is_found_in_the_metrics_by_its_trace(traced: Traced) -> None:
    parent = f"00-{'5e' * 16}-{'7a' * 8}-01"
    files = {"request": (None, "{}", "application/json")}
    assert httpx.post(f"{traced.server.http}/v1/plan", files=files, headers={"traceparent": parent}).status_code == 400
    with PlanClient(traced.server.http) as client:
        client.plan(observation(options=OPTIONS))
    text = httpx.get(f"{traced.server.http}/metrics", headers={"accept": "application/openmetrics-text"}).text
    [total] = [each for each in text.splitlines() if 'stage="total"' in each and "trace_id=" in each][:1]
    trace_id = total.partition('trace_id="')[2][:32]
    traced.collector.until(lambda spans: any(span.trace_id == trace_id for span in spans))


def names_of(chunk_id: str, spans: list[Seen]) -> set[str]:
    return {span.name for span in spans if span.attributes.get("wavserve.chunk") == chunk_id}


def triton_calls(spans: list[Seen], trace_id: str) -> bool:
    """Whether Triton has told of half the calls of a trace, at least. It loses the spans of some requests."""
    mine = [span for span in spans if span.trace_id == trace_id]
    calls = {span.span_id for span in mine if span.name.startswith("call ")}
    told = calls & {span.parent_id for span in mine if span.name == "InferRequest"}
    return bool(calls) and 2 * len(told) >= len(calls)


def test_a_collector_that_is_away_keeps_no_service_from_starting_planning_and_stopping(tmp_path: Path) -> None:
    server = start(tmp_path, "local", "--set", "tracing.endpoint=http://127.0.0.1:9")
    with PlanClient(server.grpc) as client:
        for _ in range(3):
            client.plan(observation(options=OPTIONS))
    server.stop()
    assert server.log.read_text().count("takes no spans") <= 1
