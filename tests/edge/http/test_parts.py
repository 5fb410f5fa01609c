"""Headers of a request and of its parts: what changes the meaning of bytes and is not honoured is refused."""

from __future__ import annotations

import gzip
import json

import httpx
import pytest

from tests.edge.bodies import GOOD, without
from tests.edge.fakes import example_image
from tests.edge.robots import reply_of
from tests.edge.served import Served
from wavserve.core.errors import InvalidRequest
from wavserve.edge.http.multipart import parse_parts

MULTIPART = "multipart/form-data; boundary=x"
REQUEST = 'Content-Disposition: form-data; name="request"'
PICTURE = example_image("wrist", "jpeg").data


def body_of(*wrist_headers: str, request: tuple[str, ...] = (REQUEST,)) -> bytes:
    """A good multipart body with other headers."""
    facts = json.dumps(without("images")).encode()
    top = ('Content-Disposition: form-data; name="agentview"', "Content-Type: image/png")
    parts = ((request, facts), (top, example_image("agentview", "png").data), (wrist_headers, PICTURE))
    lines = (b"--x\r\n" + "\r\n".join(headers).encode() + b"\r\n\r\n" + data + b"\r\n" for headers, data in parts)
    return b"".join(lines) + b"--x--\r\n"


WRIST = ('Content-Disposition: form-data; name="wrist"', "Content-Type: image/jpeg")


@pytest.mark.parametrize(
    "headers",
    [
        WRIST,
        (*WRIST, "Content-Transfer-Encoding: binary"),
        (*WRIST, "Content-Transfer-Encoding: 8BIT"),
        (*WRIST, f"Content-Length: {len(PICTURE)}"),
        (*WRIST, "X-Other: anything", "Content-Encoding: identity"),
        ("content-disposition: form-data; name=wrist; filename*=UTF-8''w.jpg", "CONTENT-TYPE: IMAGE/JPEG"),
        ('Content-Disposition: form-data; filename="a;b\\".jpg" ; name="wrist"', "Content-Type: image/jpeg; q=1"),
    ],
)
def test_headers_that_change_nothing_are_accepted(
    headers: tuple[str, ...], client: httpx.Client, served: Served
) -> None:
    answer = reply_of(client.post("/v1/plan", content=body_of(*headers), headers={"content-type": MULTIPART}))
    assert answer.code == 200, answer.content


@pytest.mark.parametrize(
    ("headers", "status", "field"),
    [
        ((*WRIST, "Content-Transfer-Encoding: quoted-printable"), 415, "part[2].content-transfer-encoding"),
        ((*WRIST, "Content-Transfer-Encoding: base64"), 415, "part[2].content-transfer-encoding"),
        ((*WRIST, "Content-Encoding: gzip"), 415, "part[2].content-encoding"),
        ((*WRIST, "Content-Range: bytes 0-9/20"), 415, "part[2].content-range"),
        ((*WRIST, "Content-Length: 3"), 400, "part[2].content-length"),
        ((WRIST[0], "Content-Type: image/jpeg; charset=utf-16"), 415, "part[2].content-type"),
        ((*WRIST, "Content-Type: image/png"), 400, "part[2].headers"),
        ((*WRIST, 'Content-Disposition: form-data; name="top"'), 400, "part[2].headers"),
        ((*WRIST, "no header"), 400, "part[2].headers"),
        ((*WRIST, "X-Folded: a", " b"), 400, "part[2].headers"),
        ((WRIST[0] + '; name="top"', WRIST[1]), 400, "part[2].content-disposition"),
        ((WRIST[0] + "; name*=UTF-8''top", WRIST[1]), 400, "part[2].content-disposition"),
        (("Content-Disposition: form-data", WRIST[1]), 400, "part[2].content-disposition"),
        (('Content-Disposition: attachment; name="wrist"', WRIST[1]), 400, "part[2].content-disposition"),
        ((WRIST[1],), 400, "part[2].content-disposition"),
        ((*WRIST, f"X-Long: {'x' * 5000}"), 413, "part[2].headers"),
    ],
)
def test_headers_that_change_a_meaning_are_refused(
    headers: tuple[str, ...], status: int, field: str, client: httpx.Client, served: Served
) -> None:
    answer = reply_of(client.post("/v1/plan", content=body_of(*headers), headers={"content-type": MULTIPART}))
    assert (answer.code, answer.content["field"]) == (status, field), answer.content
    assert served.policy.requests == []


def test_a_quoted_printable_instruction_is_not_read_raw(client: httpx.Client, served: Served) -> None:
    request = (REQUEST, "Content-Type: application/json", "Content-Transfer-Encoding: quoted-printable")
    body = body_of(*WRIST, request=request)
    answer = reply_of(client.post("/v1/plan", content=body, headers={"content-type": MULTIPART}))
    assert (answer.code, answer.content["field"]) == (415, "part[0].content-transfer-encoding")


@pytest.mark.parametrize(
    ("headers", "status", "field"),
    [
        ([("content-type", "application/json; charset=latin-1")], 415, "content-type"),
        ([("content-type", "application/json"), ("content-encoding", "gzip")], 415, "content-encoding"),
        ([("content-type", "application/json"), ("content-range", "bytes 0-9/20")], 415, "content-range"),
        ([("content-type", "application/json"), ("content-type", "text/plain")], 400, "content-type"),
        ([("content-type", "multipart/form-data; boundary=x; boundary=y")], 400, "content-type"),
        ([("content-type", "multipart/form-data; boundary")], 400, "content-type"),
    ],
)
def test_headers_of_a_request_that_are_not_honoured_are_refused(
    headers: list[tuple[str, str]], status: int, field: str, client: httpx.Client, served: Served
) -> None:
    content = json.dumps(GOOD).encode()
    content = gzip.compress(content) if dict(headers).get("content-encoding") else content
    answer = reply_of(client.post("/v1/plan", content=content, headers=headers))
    assert (answer.code, answer.content["field"]) == (status, field), answer.content
    assert served.policy.requests == []


def framed(*parts: bytes) -> bytes:
    head = b'Content-Disposition: form-data; name="a"\r\n\r\n'
    return b"".join(b"--x\r\n" + head + part + b"\r\n" for part in parts)


@pytest.mark.parametrize("part", [b"", b"\r\n", b"\r\n--", b"\r\n--y", b"\0\xff\r", b"\n--x--\n"])
def test_a_part_is_every_byte_between_its_boundaries(part: bytes) -> None:
    found = parse_parts(framed(part, part) + b"--x--", "x")
    assert [each.data for each in found] == [part, part]


@pytest.mark.parametrize("around", [(b"", b""), (b"before\r\n", b"\r\nafter\r\n--x"), (b"\r\n", b"\r\n")])
def test_what_is_around_the_parts_is_no_part(around: tuple[bytes, bytes]) -> None:
    assert [part.data for part in parse_parts(around[0] + framed(b"1") + b"--x--" + around[1], "x")] == [b"1"]


@pytest.mark.parametrize(
    "body",
    [
        framed(b"1"),
        framed(b"1") + b"--x",
        framed(b"1") + b"--x-",
        framed(b"1\r\n--xyz") + b"--x--",
        b"--x\r\n\r\nno headers\r\n--x--",
        b"--x\r\n--x--",
        framed(b"1").replace(b'"a"', b'"\xff"') + b"--x--",
        framed(*[b""] * 18) + b"--x--",
    ],
)
def test_a_body_that_is_not_whole_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        parse_parts(body, "x")


@pytest.mark.parametrize("boundary", ["", "x" * 71, "x ", "x\0", "é"])
def test_a_boundary_is_one_of_rfc_2046(boundary: str) -> None:
    with pytest.raises(InvalidRequest, match="content-type"):
        parse_parts(b"", boundary)
