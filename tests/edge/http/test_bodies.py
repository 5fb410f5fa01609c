"""Bodies that HTTP alone has: content types, malformed JSON, malformed multipart parts, length limits."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.edge.bodies import GOOD, with_image, without
from tests.edge.fakes import example_image
from tests.edge.robots import reply_of
from tests.edge.served import Served

JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("body", "field", "expected", "actual"),
    [
        (b"", "body", "JSON in UTF-8", "0 bytes that do not parse: "),
        (b"{", "body", "JSON in UTF-8", "1 bytes that do not parse"),
        (b'{"a" 1}', "body", "JSON in UTF-8", "7 bytes that do not parse: Expecting ':' delimiter at byte 5"),
        (b"[" * 9_000, "body", "at most 32 lists and objects inside each other", "9000"),
        (b"[" * 100_000, "body", "at most 10000 list items and object members", "100000"),
        (b'{"a": "\xff"}', "body", "JSON in UTF-8", "10 bytes that do not parse"),
        (b"[]", "body", "an object", "[]"),
        (b'{"seed": 1, "seed": 2}', "seed", "each key once in an object", "2 times"),
        (without("state"), "state", "a value", "nothing"),
        (without("images"), "images", "a value", "nothing"),
        (GOOD | {"colour": 1}, "colour", "only fields of the contract", "an unknown field"),
        (GOOD | {"state": "0,0"}, "state", "a valid list", "'0,0'"),
        (GOOD | {"state": [0.0, "1"]}, "state[1]", "a valid number", "'1'"),
        (GOOD | {"state": [True] * 8}, "state[0]", "a valid number", "True"),
        (GOOD | {"state": [10**400] * 8}, "state[0]", "", ""),
        (GOOD | {"state": [1e39] * 8}, "state[0]", "a finite float32", "1e+39"),
        (GOOD | {"sequence": 1.0}, "sequence", "a valid integer", "1.0"),
        (GOOD | {"sequence": -1}, "sequence", f"0 to {2**63 - 1}", "-1"),
        (GOOD | {"sequence": 2**53}, "sequence", f"a decimal text for an integer above {2**53 - 1}", str(2**53)),
        (GOOD | {"seed": 2**53}, "seed", f"a decimal text for an integer above {2**53 - 1}", str(2**53)),
        (GOOD | {"seed": "1.0"}, "seed", "a valid integer", "'1.0'"),
        (GOOD | {"seed": "0x10"}, "seed", "a valid integer", "'0x10'"),
        (GOOD | {"seed": str(2**63)}, "seed", f"0 to {2**63 - 1}", str(2**63)),
        (GOOD | {"sequence": 1e3}, "sequence", "a valid integer", "1000.0"),
        (GOOD | {"deadline_ms": 10**30}, "deadline_ms", f"1 to {2**32 - 1}", str(10**30)),
        (GOOD | {"instruction": None}, "instruction", "a valid string", "None"),
        (GOOD | {"instruction": "\ud800"}, "instruction", "", ""),
        (GOOD | {"planner": {"num_iterations": "2"}}, "planner.num_iterations", "an integer", "'2'"),
        (GOOD | {"planner": {"num_iterations": True}}, "planner.num_iterations", "an integer", "True"),
        (GOOD | {"planner": {"temperature": 2}}, "planner.temperature", "one of mode, num_iterations", "an unknown"),
        (with_image(data="AAA"), "images.agentview.data", "base64", "3 characters: Incorrect padding"),
        (with_image(data="A A A A "), "images.agentview.data", "base64", "8 characters: "),
        (with_image(data="é"), "images.agentview.data", "base64", "6 characters: "),
        (with_image(height=None), "images[0].height", "a valid integer", "None"),
        (with_image(depth=1), "images[0].depth", "only fields of the contract", "an unknown field"),
        (with_image(captured_mono_ns=2**63), "images.agentview.captured_mono_ns", "0 to", str(2**63)),
    ],
)
def test_a_malformed_body_names_its_field(
    body: Any, field: str, expected: str, actual: str, client: httpx.Client, served: Served
) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body)
    answer = reply_of(client.post("/v1/plan", content=content, headers=JSON))
    assert (answer.code, answer.name, answer.content["field"]) == (400, "invalid-request", field), answer.content
    assert answer.content["expected"].startswith(expected)
    assert answer.content["actual"].startswith(actual)
    assert served.policy.requests == []


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_another_content_type_is_415(content_type: str, client: httpx.Client) -> None:
    answer = reply_of(client.post("/v1/plan", content=json.dumps(GOOD), headers={"content-type": content_type}))
    assert (answer.code, answer.name) == (415, "unsupported-media")
    assert answer.content["expected"] == "application/json or multipart/form-data"
    assert answer.content["actual"] == (repr(content_type) if content_type else "none")


def test_json_may_state_its_charset(client: httpx.Client) -> None:
    headers = {"content-type": "Application/JSON; charset=utf-8"}
    assert reply_of(client.post("/v1/plan", content=json.dumps(GOOD), headers=headers)).code == 200


REQUEST = ("request", (None, json.dumps(without("images")), "application/json"))
AGENTVIEW = ("agentview", ("a.png", example_image("agentview", "png").data, "image/png"))
WRIST = ("wrist", ("w.jpg", example_image("wrist", "jpeg").data, "image/jpeg"))


def facts(*images: dict[str, Any]) -> tuple[str, Any]:
    return ("request", (None, json.dumps(without("images") | {"images": list(images)}), "application/json"))


def part(name: str, data: bytes, content_type: str | None, filename: str | None = "f") -> tuple[str, Any]:
    return (name, (filename, data, content_type) if content_type else (filename, data))


@pytest.mark.parametrize(
    ("files", "status", "field", "expected", "actual"),
    [
        ([AGENTVIEW, WRIST], 400, "request", "one part named request", "0 such parts"),
        ([REQUEST, REQUEST, AGENTVIEW, WRIST], 400, "request", "one part named request", "2 such parts"),
        ([("request", (None, "{", "application/json")), AGENTVIEW], 400, "request", "JSON in UTF-8", "1 bytes"),
        ([("request", (None, "{}", "text/xml")), AGENTVIEW], 415, "request", "application/json", "text/xml"),
        ([REQUEST, AGENTVIEW], 400, "images.wrist", "one image of each camera", "no image"),
        ([REQUEST, AGENTVIEW, WRIST, WRIST], 400, "images.wrist", "one image", "2 images"),
        ([REQUEST, AGENTVIEW, part("wrist", b"x", "image/gif")], 415, "images.wrist", "a part of type", "image/gif"),
        ([REQUEST, AGENTVIEW, part("wrist", b"x", None, "f")], 400, "images.wrist.encoding", "an encoding", "none"),
        ([REQUEST, AGENTVIEW, ("wrist", (None, b"x"))], 415, "images.wrist", "a part of type", "no content type"),
        ([facts({"camera": "top"}), AGENTVIEW, WRIST], 400, "images.top", "a part named top", "no such part"),
        (
            [facts({"camera": "wrist"}, {"camera": "wrist"}), AGENTVIEW, WRIST],
            400, "images", "each camera once", "2 entries for 1 cameras",
        ),
        (
            [facts({"camera": "wrist", "encoding": "png"}), AGENTVIEW, WRIST],
            400, "images.wrist.encoding", "jpeg, as the part's content type says", "png",
        ),
        (
            [facts({"camera": "wrist", "data": "AAAA"}), AGENTVIEW, WRIST],
            400, "images[0].data", "only fields", "an unknown field",
        ),
    ],
)  # fmt: skip
def test_malformed_parts_are_named(
    files: list[Any], status: int, field: str, expected: str, actual: str, client: httpx.Client
) -> None:
    answer = reply_of(client.post("/v1/plan", files=files))
    assert (answer.code, answer.content["field"]) == (status, field), answer.content
    assert answer.content["expected"].startswith(expected)
    assert answer.content["actual"].startswith(actual)


def test_a_part_needs_neither_facts_nor_a_file_name(client: httpx.Client, served: Served) -> None:
    wrist = ("wrist", (None, WRIST[1][1], "image/jpeg"))
    assert reply_of(client.post("/v1/plan", files=[REQUEST, AGENTVIEW, wrist])).code == 200
    (request,) = served.policy.requests
    assert set(request.images) == {"agentview", "wrist"}


@pytest.mark.parametrize(
    ("content_type", "body", "expected"),
    [
        ("multipart/form-data", b"--x--", "a boundary parameter"),
        ("multipart/form-data; boundary=x", b"nonsense", "multipart/form-data with the boundary 'x'"),
        ("multipart/form-data; boundary=x", b"", "multipart/form-data with the boundary 'x'"),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="request"\r\n\r\n{}',
            "multipart/form-data with a closing boundary",
        ),
    ],
)
def test_a_broken_multipart_body_is_refused(
    content_type: str, body: bytes, expected: str, client: httpx.Client
) -> None:
    answer = reply_of(client.post("/v1/plan", content=body, headers={"content-type": content_type}))
    assert (answer.code, answer.content["expected"]) == (400, expected)


def test_a_body_without_a_stated_length_is_counted(client: httpx.Client, served: Served) -> None:
    pieces = (b"x" * 100_000 for _ in range(5))
    answer = reply_of(client.post("/v1/plan", content=pieces, headers=JSON))
    assert (answer.code, answer.name, answer.content["field"]) == (413, "too-large", "body")
    assert answer.content["expected"] == "at most 400000 bytes"
