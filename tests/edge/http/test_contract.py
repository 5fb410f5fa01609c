"""The OpenAPI document and the service agree: schemathesis asks what the document allows, and what it forbids."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings

from tests.edge.fakes import RecordingPolicy, example_bytes, example_limits, example_pixels
from tests.edge.robots import reply_of
from tests.edge.served import Served
from wavserve.core.errors import InvalidRequest
from wavserve.core.options import merge_options
from wavserve.core.spec import PolicySpec
from wavserve.edge.http.api import create_http_app
from wavserve.system.telemetry import Metrics

CAMERAS = ("agentview", "wrist")
PIXELS = example_pixels()
PICTURES = {name: example_bytes(PIXELS, name) for name in ("raw_rgb8", "raw_bgr8", "jpeg", "png")}
A_MINUTE_MS = 60_000


@pytest.fixture(scope="module")
def statuses() -> Iterator[Counter[tuple[str, bool, int]]]:
    """How often each operation gave each status to allowed and to forbidden requests."""
    counts: Counter[tuple[str, bool, int]] = Counter()
    yield counts
    for operation in ("POST /v1/plan", "POST /v1/sessions/{session_id}/reset", "DELETE /v1/sessions/{session_id}"):
        assert counts[operation, True, 200] > 5, counts


contract = schemathesis.openapi.from_dict(
    create_http_app(RecordingPolicy(), example_limits(), Metrics()).openapi(),
    config=schemathesis.Config.from_dict({"checks": {"negative_data_rejection": {"expected-statuses": ["4xx"]}}}),
)


@pytest.mark.filterwarnings("ignore:Generating overly large repr")  # of a request with images
@contract.parametrize()
@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_the_document_says_what_the_service_does(case: Any, running: Served, statuses: Any) -> None:
    allowed = case.meta.generation.mode.is_positive
    stated = str(case.headers.get("x-deadline-ms"))
    if stated.isdecimal() and 0 < int(stated) < A_MINUTE_MS:  # a plan in a few milliseconds would be luck
        case.headers["x-deadline-ms"] = str(A_MINUTE_MS)
    if allowed and isinstance(case.body, dict):
        complete(case.body, running)
        case.multipart_content_types = dict.fromkeys(CAMERAS, "image/png")
    response = case.call(base_url=running.address.http)
    statuses[case.operation.label, allowed, response.status_code] += 1
    case.validate_response(response)


def complete(body: dict[str, Any], running: Served) -> None:
    """Adds what no schema can say: real pictures, bytes of a text, enough elites, what a mode has."""
    fields = body.get("request", body)
    if fields is not body:
        fields = body["request"] = json.loads(fields) if isinstance(fields, str) else fields
        fields["images"] = []  # the types of the parts say all
        body |= {camera: type(body[camera])(PICTURES["png"]) for camera in CAMERAS}
    for camera, image in zip(CAMERAS, fields.get("images", ()), strict=False):
        image["camera"] = camera
        if "data" in image:
            image["data"] = base64.b64encode(PICTURES[image["encoding"]]).decode()
    fields["instruction"] = fields["instruction"].encode()[:64].decode(errors="ignore").strip() or "go"
    fields |= without_points(fields)
    if isinstance(fields.get("deadline_ms"), int):
        fields["deadline_ms"] = max(fields["deadline_ms"], A_MINUTE_MS)
    spec = running.policy.spec
    if fields.get("rtc"):
        make_consistent(fields["rtc"], fields.get("executed_steps", 0), spec)
    try:
        merge_options(spec.planner, spec.bounds, dict(fields.get("planner", {})))
    except InvalidRequest as error:
        if not any(words in error.expected for words in ("elites", "in mode")):
            raise
        del fields["planner"]


def make_consistent(rtc: dict[str, Any], executed_steps: int, spec: PolicySpec) -> None:
    """Corrects the numbers of real-time chunking whose range depends on other fields."""
    if executed_steps > spec.chunk:
        rtc["prev_chunk_left_over"] = []
    num_left = len(rtc.get("prev_chunk_left_over", ()))
    most = min(num_left, executed_steps, spec.chunk - executed_steps) if num_left else 0
    if rtc.get("mode") == "rtc_trained":
        most = min(most, spec.max_trained_delay)
    rtc["inference_delay"] = min(rtc.get("inference_delay", 0), most)


def without_points(tree: Any) -> Any:
    """1.0 as 1. JSON Schema's integers include 1.0, the service's do not."""
    if isinstance(tree, dict):
        return {name: without_points(value) for name, value in tree.items()}
    if isinstance(tree, list):
        return [without_points(value) for value in tree]
    return int(tree) if isinstance(tree, float) and tree.is_integer() else tree


def test_a_parameter_is_documented_once() -> None:
    for path in create_http_app(RecordingPolicy(), example_limits(), Metrics()).openapi()["paths"].values():
        for operation in path.values():
            names = [(each["in"], each["name"]) for each in operation.get("parameters", [])]
            assert len(names) == len(set(names)), names


def test_the_planner_defaults_are_the_policys() -> None:
    policy = RecordingPolicy()
    document = create_http_app(policy, example_limits(), Metrics()).openapi()
    for model in ("PlanBody", "PlanFields"):
        options = document["components"]["schemas"][model]["properties"]["planner"]["properties"]
        assert {name: option["default"] for name, option in options.items()} == asdict(policy.spec.planner)


def test_the_example_is_accepted(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    example = document["components"]["schemas"]["PlanBody"]["example"]
    assert reply_of(client.post("/v1/plan", json=example)).code == 200
    assert len(example["images"]) == len(CAMERAS)
