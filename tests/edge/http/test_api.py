"""HTTP's own routes, statuses and documents."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest

from tests.edge.bodies import GOOD
from tests.edge.fakes import RecordingPolicy, example_limits
from tests.edge.robots import get_in_process, reply_of
from tests.edge.served import Served
from wavserve.core.errors import BackendError, DeadlineExceeded, MissedDeadline, Overloaded
from wavserve.edge.http.api import create_http_app
from wavserve.system.telemetry import Metrics


@pytest.mark.parametrize(
    ("method", "path", "status", "name"),
    [("GET", "/nowhere", 404, "not-found"), ("GET", "/v1/plan", 405, "method-not-allowed")],
)
def test_errors_of_the_framework_are_problems(
    method: str, path: str, status: int, name: str, client: httpx.Client
) -> None:
    response = client.request(method, path)
    assert (reply_of(response).code, reply_of(response).name) == (status, name)
    assert response.json()["instance"].startswith("urn:uuid:")
    assert response.headers.get("allow") == ("POST" if status == 405 else None)


async def test_an_invalid_path_parameter_is_a_problem() -> None:
    app = create_http_app(RecordingPolicy(), example_limits(), Metrics())

    @app.get("/probe/{number}")
    async def probe(number: int) -> int:
        return number

    answer = reply_of(await get_in_process(app, "/probe/seven"))
    assert (answer.code, answer.content["field"], answer.content["actual"]) == (400, "path.number", "'seven'")


@pytest.mark.parametrize(
    ("error", "status", "name", "retryable"),
    [
        (Overloaded("full", retry_after_s=2.5, predicted_s=0.75), 429, "overloaded", True),
        (DeadlineExceeded("late", MissedDeadline(-12.5, 2, 8, 3)), 504, "deadline-exceeded", False),
        (BackendError("the model failed"), 503, "backend-error", True),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_failure_of_the_service_is_reported_without_a_field(
    error: Exception, status: int, name: str, retryable: bool, client: httpx.Client, served: Served
) -> None:
    served.policy.error = error
    response = client.post("/v1/plan", json=GOOD)
    answer = reply_of(response)
    assert (answer.code, answer.name, answer.content["retryable"]) == (status, name, retryable)
    assert answer.content["detail"] == str(error)
    assert "field" not in answer.content
    assert response.headers.get("retry-after") == ("3" if status == 429 else None)
    assert answer.content.get("retry_after_s") == (2.5 if status == 429 else None)
    assert answer.content.get("predicted_s") == (0.75 if status == 429 else None)
    spent = {name: answer.content.get(name) for name in ("deadline", "slack_ms", "iterations_done")}
    missed = {"deadline": "missed", "slack_ms": -12.5, "iterations_done": 2}
    assert spent == (missed if status == 504 else dict.fromkeys(missed))


def test_health_and_readiness(client: httpx.Client, served: Served) -> None:
    assert client.get("/healthz").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready"}
    served.policy.ready = False
    assert client.get("/healthz").status_code == 200
    assert reply_of(client.get("/readyz")).code == 503


def test_metrics_are_prometheus_text(client: httpx.Client) -> None:
    client.post("/v1/plan", json=GOOD)
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    assert 'wavserve_requests_total{edge="http",outcome="ok"}' in response.text


def test_the_openapi_document_is_complete(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    routes = {path: list(methods) for path, methods in document["paths"].items()}
    assert routes == {
        "/v1/plan": ["post"],
        "/v1/sessions/{session_id}/reset": ["post"],
        "/v1/sessions/{session_id}": ["delete"],
        "/v1/policies": ["get"],
        "/healthz": ["get"],
        "/readyz": ["get"],
        "/metrics": ["get"],
    }
    assert set(document["paths"]["/v1/plan"]["post"]["requestBody"]["content"]) == {
        "application/json",
        "multipart/form-data",
    }
    [header] = document["paths"]["/v1/plan"]["post"]["parameters"]
    assert (header["name"], header["in"]) == ("x-deadline-ms", "header")
    schemas = document["components"]["schemas"]
    for name in references(document):
        assert name in schemas
    assert "num_iterations" in schemas["PlanBody"]["properties"]["planner"]["properties"]
    page = client.get("/docs").text
    assets = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(assets) == 3
    for asset in assets:  # a robot's network is closed, so nothing may come from outside
        assert client.get(asset).status_code == 200


def references(tree: object) -> Iterator[str]:
    if isinstance(tree, dict):
        if isinstance(tree.get("$ref"), str):
            yield tree["$ref"].removeprefix("#/components/schemas/")
        for value in tree.values():
            yield from references(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from references(value)
