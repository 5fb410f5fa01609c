"""What is HTTP's own in the plan clients: addresses, answers of other servers, errors without a problem document."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import numpy as np
import pytest

from tests.edge.fakes import example_chunk_of, example_observation, example_spec
from tests.edge.served import Served
from wavserve.clients.async_client import AsyncPlanClient
from wavserve.clients.images import encode_images
from wavserve.clients.plan_client import PlanClient
from wavserve.core.errors import (
    InvalidAnswer,
    InvalidRequest,
    NotReady,
    SequenceConflict,
    UnknownPolicy,
    UnsupportedMedia,
    WavserveError,
)
from wavserve.core.rtc import RtcRequest
from wavserve.core.types import PlanRequest
from wavserve.edge.http.answers import chunk_json
from wavserve.wire.json_answers import chunk_from_json


@contextmanager
def answering(status: int, body: bytes, media: str = "application/json") -> Iterator[str]:
    """A server that gives every request the same answer. Gives its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("content-type", media)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    "target",
    ["http://", "http://:8000", "http://host:0", "http://host:99999", "http://host/v1", "https://u@host", "http://h?x"],
)
def test_a_target_that_is_no_server_is_refused(target: str) -> None:
    with pytest.raises(InvalidRequest, match="target: expected http://HOST:PORT"):
        PlanClient(target)


def test_both_wires_send_the_policy_the_same_request(served: Served) -> None:
    """Raw, JPEG and PNG pictures, every field, and numbers that JSON libraries round."""
    pictures = {name: np.full((128, 128, 3), 7, np.uint8) for name in ("agentview", "wrist")}
    raw = encode_images(pictures, example_spec().cameras, jpeg_quality=None)
    for images in (example_observation().images, raw, encode_images(pictures, example_spec().cameras)):
        observation = example_observation(
            images=images,
            session_id="s",
            sequence=2**63 - 2,
            control_step=2**53 + 1,
            executed_steps=3,
            seed=2**63 - 1,
            options={"num_iterations": 0, "mode": "off"},
            state=tuple(np.float32(0.1) * np.arange(8)),
        )
        for target in (served.address.grpc, f"{served.address.http}/"):
            with PlanClient(target) as client:
                client.plan(observation)
        over_grpc, over_http = served.policy.requests[-2:]
        assert over_grpc.state.tobytes() == over_http.state.tobytes()
        assert dict(over_grpc.image_digests) == dict(over_http.image_digests)
        same = {"state": None, "images": {}, "image_digests": {}}
        assert replace(over_grpc, **same) == replace(over_http, **same)


def test_a_left_over_arrives_over_both_wires(served: Served) -> None:
    rows = np.linspace(-0.1, 0.1, 21, dtype=np.float32).reshape(3, 7)
    wish = RtcRequest(mode="rtc_guided", inference_delay=1, execution_horizon=4, prev_chunk_left_over=rows)
    for target in (served.address.grpc, served.address.http):
        with PlanClient(target) as client:
            client.plan(example_observation(rtc=wish, executed_steps=4))
    for request in served.policy.requests[-2:]:
        assert request.rtc.prev_chunk_left_over.tobytes() == rows.tobytes()
        assert (request.rtc.mode, request.rtc.inference_delay, request.rtc.execution_horizon) == ("rtc_guided", 1, 4)


def test_an_answer_is_the_same_over_both_wires(served: Served) -> None:
    chunks, policies = [], []
    for target in (served.address.grpc, served.address.http):
        with PlanClient(target) as client:
            chunks.append(client.plan(example_observation(imagine_chunks=1)))
            policies.append(client.policy())
    over_grpc, over_http = chunks
    assert over_grpc.actions.tobytes() == over_http.actions.tobytes()
    assert over_grpc.imagined == over_http.imagined
    records = zip(over_grpc.receipt.iterations, over_http.receipt.iterations, strict=True)
    assert all(mine.snr.tobytes() == theirs.snr.tobytes() for mine, theirs in records)
    plain = {"iterations": ()}
    assert replace(over_grpc.receipt, **plain) == replace(over_http.receipt, **plain)
    assert policies[0] == policies[1]


def test_refusals_are_typed_and_have_their_id(served: Served) -> None:
    with PlanClient(served.address.http) as client:
        served.policy.error = SequenceConflict("sequence", "more than 7", 7)
        with pytest.raises(SequenceConflict, match="expected more than 7") as caught:
            client.plan(example_observation())
        assert str(caught.value.error_id).startswith("urn:uuid:")
        with pytest.raises(UnknownPolicy, match="policy: expected example, got 'other'"):
            client.policy("other")
        with pytest.raises(UnsupportedMedia):
            client.plan(example_observation(images=(replace(example_observation().images[0], encoding="gif"),)))
        served.policy.error = None
        client.reset("a?b c%2F")
        assert served.policy.resets[-1] == "a?b c%2F"
        client.end("a?b c%2F")
        assert served.policy.ended[-1] == "a?b c%2F"


@pytest.mark.parametrize(
    ("status", "body", "error", "text"),
    [
        (502, b"<html>bad gateway</html>", NotReady, "HTTP status 502"),
        (404, b'{"detail": "Not Found"}', WavserveError, "HTTP status 404"),
        (301, b"", WavserveError, "HTTP status 301"),
        (200, b"<html>", InvalidAnswer, "expected JSON"),
        (200, b"{}", InvalidAnswer, "policies: expected one"),
        (200, b'{"policies": [[]]}', InvalidAnswer, "expected a wavserve.v1.PolicyInfo"),
        (200, b'{"policies": [{"name": 3}]}', InvalidAnswer, "expected a wavserve.v1.PolicyInfo"),
        (200, b"[" * 100_000, InvalidAnswer, "expected JSON"),
        (418, b'{"type": "urn:wavserve:problem:new", "detail": "odd", "retryable": true}', WavserveError, "odd"),
        (400, b'{"type": "urn:wavserve:problem:invalid-request"}', InvalidRequest, "a valid request"),
    ],
)
def test_what_another_server_says_is_a_typed_error(
    status: int, body: bytes, error: type[WavserveError], text: str
) -> None:
    with answering(status, body) as target, PlanClient(target) as client, pytest.raises(WavserveError) as caught:
        client.policy()
    assert type(caught.value) is error
    assert text in str(caught.value)


def test_an_answer_without_end_is_cut_off() -> None:
    with answering(200, b"x" * 100_000) as target, PlanClient(target, 50_000) as client:
        refused = pytest.raises(InvalidAnswer, match="at most 50000 bytes")
        with refused:
            client.policy()


async def test_nobody_at_the_address_is_not_ready() -> None:
    with answering(200, b"") as target:
        pass
    async with AsyncPlanClient(target) as client:
        with pytest.raises(NotReady, match="ConnectError"):
            await client.policy()


def changed(change: Callable[[dict[str, Any]], object]) -> Any:
    """The JSON of an example chunk, changed."""
    request = PlanRequest(instruction="", images={}, state=np.zeros(8, np.float32))
    content = chunk_json(example_chunk_of(example_spec(), request))
    plain = json.loads(json.dumps(content, default=lambda each: each.tolist()))
    change(plain)
    return plain


def test_fields_of_a_newer_server_are_ignored_and_unknown_meanings_refused() -> None:
    assert chunk_from_json(changed(lambda chunk: chunk.update(new={"a": [1]}))).sequence == 0
    with pytest.raises(InvalidAnswer, match=r"receipt.stopped"):
        chunk_from_json(changed(lambda chunk: chunk["receipt"].update(stopped="bored")))
    with pytest.raises(InvalidAnswer, match="actions: expected"):
        chunk_from_json(changed(lambda chunk: chunk["actions"].pop()))
    with pytest.raises(InvalidAnswer, match="finite"):
        chunk_from_json(changed(lambda chunk: chunk["actions"][0].__setitem__(0, None)))
