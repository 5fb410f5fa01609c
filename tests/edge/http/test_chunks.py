"""Bodies in chunks: their number is bounded by their bytes, and a request has one length."""

from __future__ import annotations

import json

import pytest

from tests.edge.bodies import GOOD
from tests.edge.http.links import answer_on, connect, head_of
from tests.edge.served import Served
from wavserve.edge.http.h11_connection import CHUNK_BYTES, MAX_SMALL_CHUNKS

BODY = json.dumps(GOOD).encode()
POST = "POST /v1/plan"
JSON, CHUNKED = "Content-Type: application/json", "Transfer-Encoding: chunked"
END = b"0\r\n\r\n"


def chunked(body: bytes, size: int) -> bytes:
    pieces = (body[at : at + size] for at in range(0, len(body), size))
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)


def answer_to(served: Served, body: bytes, *headers: str) -> tuple[bytes, bytes]:
    with connect(served.address) as link:
        link.sendall(head_of(POST, JSON, CHUNKED, *headers) + body)
        return answer_on(link)


def test_a_body_of_many_small_chunks_is_refused(served: Served) -> None:
    """Each chunk costs a step of the event loop, and one read from a socket has tens of thousands."""
    head, problem = answer_to(served, chunked(b" " * 3 * MAX_SMALL_CHUNKS, 1))
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"connection: close" in head
    assert b"more than 1000 chunks of less than 1024 bytes" in problem
    assert not served.policy.requests


@pytest.mark.parametrize(("padding", "size"), [(MAX_SMALL_CHUNKS - 2 * len(BODY) // 100, 1), (100_000, CHUNK_BYTES)])
def test_a_body_of_a_few_small_or_of_many_large_chunks_is_read(padding: int, size: int, served: Served) -> None:
    head, _ = answer_to(served, chunked(BODY, 100) + chunked(b" " * padding, size) + END)
    assert head.startswith(b"HTTP/1.1 200 ")
    assert len(served.policy.requests) == 1


def test_every_request_of_a_connection_has_chunks_of_its_own(served: Served) -> None:
    request = head_of(POST, JSON, CHUNKED) + chunked(BODY, len(BODY)) + chunked(b" " * 600, 1) + END
    with connect(served.address) as link:
        for _ in range(3):
            link.sendall(request)
            assert answer_on(link)[0].startswith(b"HTTP/1.1 200 ")


def test_two_statements_of_a_length_are_refused(served: Served) -> None:
    """A proxy that reads the other one would take the rest for the next robot's request."""
    head, problem = answer_to(served, chunked(BODY, 1000) + END, "Content-Length: 4")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"connection: close" in head
    assert b"no such header beside transfer-encoding" in problem
    assert not served.policy.requests
