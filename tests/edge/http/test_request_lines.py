"""Forms of a request's head that are rare and legal: an absolute target, and an empty line in front."""

from __future__ import annotations

import json

import pytest

from tests.edge.bodies import GOOD
from tests.edge.http.links import answer_on, connect, head_of
from tests.edge.served import Served

BODY = json.dumps(GOOD).encode()
POST = head_of("POST /v1/plan", "Content-Type: application/json", f"Content-Length: {len(BODY)}")


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("http://robot.example/healthz", b"200"),
        ("HTTP://robot.example:8000/healthz?x=1", b"200"),
        ("https://[::1]:8000/healthz", b"200"),
        ("http://robot.example/nowhere", b"404"),
        ("http://robot.example", b"404"),
        ("http://robot.example?healthz", b"404"),
        ("ftp://robot.example/healthz", b"404"),
        ("http:///healthz", b"404"),
        ("*", b"404"),
    ],
)
def test_an_absolute_target_is_its_path(served: Served, target: str, status: bytes) -> None:
    """As clients send to a proxy: RFC 9112, section 3.2.2."""
    with connect(served.address) as link:
        link.sendall(head_of(f"GET {target}"))
        assert answer_on(link)[0].split(b" ", 2)[1] == status


def test_a_plan_may_have_an_absolute_target(served: Served) -> None:
    with connect(served.address) as link:
        link.sendall(POST.replace(b"/v1/plan", b"http://robot.example/v1/plan") + BODY)
        assert answer_on(link)[0].startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("pieces", [(b"\r\n" + POST,), (b"\r\n", POST), (b"\r", b"\n" + POST)])
def test_an_empty_line_before_a_request_is_ignored(served: Served, pieces: tuple[bytes, ...]) -> None:
    """RFC 9112, section 2.2."""
    with connect(served.address) as link:
        for piece in pieces:
            link.sendall(piece)
        link.sendall(BODY)
        assert answer_on(link)[0].startswith(b"HTTP/1.1 200 ")


def test_an_empty_line_after_a_body_is_ignored(served: Served) -> None:
    """Old clients end a body with one."""
    with connect(served.address) as link:
        for _ in range(3):
            link.sendall(POST + BODY + b"\r\n")
            assert answer_on(link)[0].startswith(b"HTTP/1.1 200 ")
        link.sendall(POST + BODY + b"\r\n" + head_of("GET /healthz"))
        answer_on(link)


@pytest.mark.parametrize("junk", [b"\r\n\r\n", b"\n\r", b"\rG", b" \r\n"])
def test_other_characters_before_a_request_are_refused(served: Served, junk: bytes) -> None:
    with connect(served.address) as link:
        link.sendall(junk + head_of("GET /healthz"))
        assert answer_on(link)[0].startswith(b"HTTP/1.1 400 ")
