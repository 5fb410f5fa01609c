"""Deadlines in a header of an HTTP request."""

from __future__ import annotations

import time

import httpx
import pytest

from tests.edge.bodies import GOOD
from tests.edge.robots import reply_of
from tests.edge.served import Served


def test_a_deadline_in_the_header_counts_like_one_in_the_body(client: httpx.Client, served: Served) -> None:
    before = time.monotonic()
    for header, body in (("5000", 60_000), ("60000", 5_000)):
        client.post("/v1/plan", json=GOOD | {"deadline_ms": body}, headers={"x-deadline-ms": header})
    client.post("/v1/plan", json=GOOD)
    after = time.monotonic()
    first, second, none = served.policy.deadlines
    assert none is None
    for deadline in (first, second):
        assert deadline is not None
        assert before + 5 <= deadline <= after + 5
    assert [deadline is not None for deadline in served.policy.reserved] == [True, True, False]


@pytest.mark.parametrize("header", ["0", "-5", "1.5", "soon", "4294967296", "9" * 5000, "\u0665"])
def test_a_malformed_deadline_header_is_refused(header: str, client: httpx.Client, served: Served) -> None:
    answer = reply_of(client.post("/v1/plan", json=GOOD, headers={"x-deadline-ms": header.encode()}))
    assert (answer.code, answer.content["field"]) == (400, "x-deadline-ms")
    assert not served.policy.requests


def test_the_shortest_of_several_deadlines_counts(served: Served) -> None:
    headers = [("x-deadline-ms", "60000"), ("x-deadline-ms", "5000"), ("x-deadline-ms", "70000")]
    before = time.monotonic()
    httpx.post(f"{served.address.http}/v1/plan", json=GOOD, headers=headers, timeout=30)
    [deadline] = served.policy.deadlines
    assert deadline is not None
    assert before + 5 <= deadline <= time.monotonic() + 5
