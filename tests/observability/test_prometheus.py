"""A real Prometheus: it accepts the rules, and every query has data after a robot was served by a real Triton."""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from loadtest.redis_server import redis_server
from tests.observability.programs import program, prometheus
from tests.observability.queries import GPU, ROOT, RULES, names_in, panel_queries, rules
from tests.service.rig import REPOSITORY, observation, start
from tests.service.test_control import OPTIONS, Robot, seen
from wavserve.backends.triton.wheel import find_obstacle
from wavserve.clients.plan_client import PlanClient
from wavserve.core.control import ExecutionReport, HoldReason, Welcome
from wavserve.core.errors import DeadlineExceeded
from wavserve.core.messages import ActionChunk
from wavserve.system.processes import free_ports

pytestmark = pytest.mark.system

DATA_WITHIN_S = 120.0
UNSEEN = {"wavserve_gated_plans_total", "wavserve_unusual_states_total", "wavserve_seam_jump_bucket"}
"""what does not happen in this run: the tiny policy has no limits, its states are usual, and no plan has a left-over"""


def promtool(*arguments: str | Path) -> None:
    done = subprocess.run([program("promtool"), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_the_rules() -> None:
    promtool("check", "rules", RULES)


def test_each_alert_begins_when_it_should() -> None:
    promtool("test", "rules", ROOT / "tests/observability/rules_test.yml")


def drive(address: str, robot: Robot) -> None:
    """Plans by a unary request, one that is refused, and a robot's stream that reports."""
    with PlanClient(address) as client:
        client.plan(observation(deadline_ms=60_000, options={**OPTIONS, "num_iterations": 2}))
        with pytest.raises(DeadlineExceeded):
            client.plan(observation(deadline_ms=1))
    welcome = robot.receive()
    assert isinstance(welcome, Welcome)
    for sequence in range(2):
        robot.send(seen(sequence, welcome.epoch))
        chunk = robot.receive()
        assert isinstance(chunk, ActionChunk)
        hold = HoldReason.NO_CHUNK if sequence else None
        robot.send(ExecutionReport(chunk_id=chunk.chunk_id, chunk_age_ms=80.0, starved_steps=1, hold_reason=hold))


@contextlib.contextmanager
def gpu_metrics() -> Iterator[str]:
    """The address of a server that shows what a Triton with a GPU shows."""
    files = functools.partial(_Files, directory=str(GPU.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), files) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


class _Files(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Prometheus, which has scraped a service before and after a robot was served."""
    if (obstacle := find_obstacle(REPOSITORY)) is not None:
        pytest.skip(f"no real Triton on this machine: {obstacle}")
    folder = tmp_path_factory.mktemp("prometheus")
    [port] = free_ports(1)
    flags = ["--set", f"triton.metrics_port={port}"]
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(redis_server())
        service = start(folder, "triton-embedded", *flags, "--set", f"sessions.url={redis.url}")
        stack.callback(service.stop)
        gpu = stack.enter_context(gpu_metrics())
        gateway = service.http.removeprefix("http://")
        targets = {
            "gateway": (gateway, "/metrics"),
            "triton": (f"127.0.0.1:{port}", "/metrics"),
            "gpu": (gpu, f"/{GPU.name}"),
        }
        client = stack.enter_context(prometheus(folder, targets))
        until(lambda: len(query(client, "up == 1")) == len(targets), "every target is up")
        robot = Robot(service, "arm")
        stack.callback(robot.close)
        drive(service.grpc, robot)
        yield client


def query(client: httpx.Client, expression: str) -> list[object]:
    """The series of an expression now. An expression that Prometheus cannot parse fails the test."""
    try:
        answer = client.get("/api/v1/query", params={"query": expression})
    except httpx.TransportError:
        return []
    if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
        return []
    assert answer.json()["status"] == "success", (expression, answer.text)
    found: list[object] = answer.json()["data"]["result"]
    return found


def until(holds: object, what: str) -> None:
    assert callable(holds)
    give_up = time.monotonic() + DATA_WITHIN_S
    while not holds():
        assert time.monotonic() < give_up, what
        time.sleep(0.5)


def test_every_panel_has_data(asked: httpx.Client) -> None:
    queries = dict.fromkeys(panel_queries())
    waiting = {each for each in queries if not names_in(each[1]) & UNSEEN}
    for _, expression in queries.keys() - waiting:
        query(asked, expression)  # it can be parsed

    def all_have() -> bool:
        waiting.difference_update([each for each in waiting if query(asked, each[1])])
        return not waiting

    with contextlib.suppress(AssertionError):
        until(all_have, "data")
    assert not waiting, json.dumps(sorted(waiting), indent=1)


def test_every_rule_reads_data(asked: httpx.Client) -> None:
    """Prometheus evaluates each rule, and every series that it reads exists."""
    groups = asked.get("/api/v1/rules").json()["data"]["groups"]
    found = {rule["name"]: rule for group in groups for rule in group["rules"]}
    assert found.keys() == {rule.get("alert") or rule["record"] for rule in rules()}
    until(
        lambda: all(
            rule["health"] == "ok"
            for group in asked.get("/api/v1/rules").json()["data"]["groups"]
            for rule in group["rules"]
        ),
        "every rule is evaluated",
    )
    for name in set().union(*(names_in(rule["expr"]) for rule in rules())):
        until(lambda name=name: bool(query(asked, name)), name)
