"""What a JSON body may cost: depth, elements and texts are bounded before anything is built. Only images are long."""

from __future__ import annotations

import base64
import contextlib
import json
import random
import threading
import time
import tracemalloc
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.edge.bodies import GOOD, with_image
from tests.edge.robots import reply_of
from tests.edge.served import Served
from wavserve.core.errors import InvalidRequest
from wavserve.edge.http import bounded_json
from wavserve.edge.http.body import parse_plan
from wavserve.edge.http.headers import media_type
from wavserve.wire import MAX_DEPTH, MAX_ELEMENTS, MAX_OUTLINE_BYTES, MAX_TEXT_BYTES

MEGABYTES = 1_000_000
JSON = {"content-type": "application/json"}


def nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"[" + b"[]," * 10 * MEGABYTES + b"[]]", "body"),
        (b"[" * 30 * MEGABYTES, "body"),
        (b'["' + b'\\"' * 15 * MEGABYTES + b'"]', "body"),
        (b'{"data": "' + b'\\"' * 15 * MEGABYTES + b'"}', "data"),
        (b"[" + b'"",' * 10 * MEGABYTES + b'""]', "body"),
        (b"[" + b"1" * 30 * MEGABYTES + b"]", "body"),
        (b" " * 30 * MEGABYTES, "body"),
        (b"{" + b'"data": "",' * 3 * MEGABYTES + b"}", "body"),
        (b'{"instruction": "' + b"x" * 30 * MEGABYTES + b'"}', "instruction"),
        (b'{"' + b"k" * 30 * MEGABYTES + b'": 1}', "body"),
    ],
    ids=["lists", "levels", "quotes", "quotes in data", "texts", "digits", "spaces", "data", "text", "key"],
)
def test_thirty_megabytes_of_anything_but_images_cost_little(body: bytes, field: str) -> None:
    tracemalloc.start()
    with pytest.raises(InvalidRequest) as caught:
        bounded_json.parse(body, "body")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.5 * len(body)
    assert caught.value.field == field
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("text", "is_allowed"),
    [
        (nested(MAX_DEPTH), True),
        (nested(MAX_DEPTH + 1), False),
        (b"[" + b"[]," * 9 + b"[]]", True),
        (b"[" + b"0," * (MAX_ELEMENTS - 2) + b"0]", True),
        (b"[" + b"0," * MAX_ELEMENTS + b"0]", False),
        (b'"' + b"x" * MAX_TEXT_BYTES + b'"', True),
        (b'"' + b"x" * (MAX_TEXT_BYTES + 1) + b'"  ', False),
        (b'"' + nested(100) + b',,,"', True),
        (b'["\\"' + nested(100) + b'\\\\"]', True),
        (b"[" + b'"",' * 999 + b'""]', True),
        (b"[" + b'"",' * 1000 + b'""]', False),
        (b"{" + b'"data":"",' * 600 + b'"":0}', False),
        (b"[" + b" " * (MAX_OUTLINE_BYTES - 2) + b"]", True),
        (b"[" + b" " * MAX_OUTLINE_BYTES + b"]", False),
        (b'{"data": "' + b"A" * MAX_OUTLINE_BYTES + b'"}', True),
        (b'{"d\\u0061ta" :\n"' + b"A" * MAX_OUTLINE_BYTES + b'"}', True),
        (b'{"data": ["' + b"A" * MAX_OUTLINE_BYTES + b'"]}', False),
        (b'{"x": "data", "y": "' + b"A" * MAX_OUTLINE_BYTES + b'"}', False),
    ],
)
def test_limits_are_exact(text: bytes, is_allowed: bool) -> None:
    with contextlib.nullcontext() if is_allowed else pytest.raises(InvalidRequest):
        bounded_json.parse(text, "body")


trees = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.just("data"), inner, max_size=3)
    ),
    max_leaves=15,
)


def with_bytes(tree: Any) -> Any:
    """The tree as it is parsed: each text under `data` is bytes, as it is written in JSON."""
    if isinstance(tree, dict):
        return {
            key: json.dumps(value)[1:-1].encode() if key == "data" and isinstance(value, str) else with_bytes(value)
            for key, value in tree.items()
        }
    return [with_bytes(each) for each in tree] if isinstance(tree, list) else tree


@given(tree=trees)
def test_json_means_what_it_means_elsewhere(tree: Any) -> None:
    plain = json.dumps(tree)
    if '\\"' in plain and "data" in plain:
        return  # a quote in data is refused
    assert bounded_json.parse(plain.encode(), "body") == with_bytes(json.loads(plain))


@pytest.mark.parametrize("levels", [40, 985, 4_000])
def test_a_deep_body_is_a_bad_request_however_long_it_is(levels: int, client: httpx.Client, served: Served) -> None:
    text = f'{json.dumps(GOOD)[:-1]}, "seed": {nested(levels).decode()}'
    answer = reply_of(client.post("/v1/plan", content=f"{text}{' ' * 150_000}}}", headers=JSON))
    assert (answer.code, answer.content["actual"]) == (400, str(levels + 1))
    assert served.policy.requests == []


def test_the_escapes_of_other_encoders_are_undone(client: httpx.Client, served: Served) -> None:
    """PHP and Java write \\/ and .NET writes \\u002B."""
    text = json.dumps(GOOD).replace("/", "\\/").replace("+", "\\u002B")
    assert "\\/" in text
    assert "\\u002B" in text
    assert reply_of(client.post("/v1/plan", content=text, headers=JSON)).code == 200
    assert len(served.policy.requests) == 1


@pytest.mark.parametrize("offset", range(8))
def test_escapes_are_undone_wherever_they_are(offset: int) -> None:
    plain = "A" * (4 + offset) + "+/A+" * 500_000
    text = plain.replace("/", "\\/").replace("+", "\\u002b")
    assert bounded_json.parse(f'{{"data": "{text}"}}'.encode(), "body") == {"data": plain.encode()}


def test_other_threads_run_while_escapes_are_undone() -> None:
    """The event loop is such a thread."""
    body = b'{"data": "' + b"\\/" * 15 * MEGABYTES + b'"}'
    parsing = threading.Thread(target=bounded_json.parse, args=(body, "body"))
    began = last = time.monotonic()
    longest_stop = 0.0
    parsing.start()
    while parsing.is_alive():
        time.sleep(0.001)
        now = time.monotonic()
        longest_stop, last = max(longest_stop, now - last), now
    assert longest_stop < 0.5 * (last - began)


def data_of(text: str) -> bytes:
    """The first image's bytes, of a request with this base64."""
    return (
        parse_plan(media_type("content-type", "application/json"), json.dumps(with_image(data=text)).encode())
        .images[0]
        .data
    )


@pytest.mark.parametrize("num_bytes", [0, 1, 2, 3, 786_431, 786_432, 786_433, 2_000_000])
def test_base64_is_decoded_whole(num_bytes: int) -> None:
    data = random.Random(0).randbytes(num_bytes)
    assert data_of(base64.b64encode(data).decode()) == data


@pytest.mark.parametrize(
    "text", ["=", "AAA", "AA=", "AA==AAAA", "AA==AA==", "AAAA=", "AA-_", "AA A", "AA\nAA", "\u0041é"]
)
@pytest.mark.parametrize("before", ["", "A" * 2**20, "A" * (2**20 - 2) + "=="])
def test_what_is_no_base64_is_refused(before: str, text: str) -> None:
    with pytest.raises(InvalidRequest, match="expected base64"):
        data_of(before + text)


def test_an_error_shows_a_few_characters_of_a_value(client: httpx.Client) -> None:
    long = {"planner": {"mode": ["x" * 60_000] * 4}, "state": GOOD["state"]}
    answer = reply_of(client.post("/v1/plan", content=json.dumps(GOOD | long), headers=JSON))
    assert answer.content["field"] == "planner.mode"
    assert len(answer.content["actual"]) <= 64
