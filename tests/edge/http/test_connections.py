"""Refusals before a body arrives, late and broken uploads, disconnects, and connections that are used again."""

from __future__ import annotations

import json
import re
import socket
import threading
import time

import httpx

from tests.edge.bodies import GOOD
from tests.edge.fakes import example_observation
from tests.edge.http.links import connect
from tests.edge.robots import JsonRobot
from tests.edge.served import Served
from wavserve.core.errors import Overloaded


def test_a_stated_length_over_the_limit_is_refused_before_the_body(served: Served) -> None:
    with connect(served.address) as link:
        link.sendall(b"POST /v1/plan HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n")  # and no body
        assert link.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_a_request_is_refused_before_its_body_arrives(served: Served) -> None:
    """The headers are enough: the robot need not send the images."""
    served.policy.reserve_error = Overloaded("full", retry_after_s=2.5, predicted_s=0.75)
    with connect(served.address) as link:
        head = "POST /v1/plan HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nX-Deadline-Ms: 5\r\n"
        link.sendall(f"{head}Content-Length: 50000\r\n\r\n".encode())
        answer = b""
        while not answer.endswith(b"}"):  # headers and body may arrive separately
            part = link.recv(65536)
            assert part, answer
            answer += part
    assert answer.startswith(b"HTTP/1.1 429")
    assert b'"predicted_s":0.75' in answer
    assert not served.policy.requests


def test_a_body_that_is_late_is_not_waited_for(served: Served) -> None:
    with upload(served, "X-Deadline-Ms: 100") as link:
        assert link.recv(65536).startswith(b"HTTP/1.1 504")
        while link.recv(65536):  # the rest of the answer, then the end of the connection
            pass
    assert not served.policy.requests


def test_a_robot_that_disconnects_cancels_its_plan(served: Served) -> None:
    started, cancelled = threading.Event(), threading.Event()
    served.policy.hold, served.policy.started, served.policy.cancelled = True, started.set, cancelled.set
    body = json.dumps(GOOD).encode()
    with connect(served.address) as link:
        head = "POST /v1/plan HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        link.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        assert started.wait(30)
    assert cancelled.wait(30)


def test_a_disconnect_during_the_upload_counts_as_cancelled(served: Served, client: httpx.Client) -> None:
    cancelled, internal = (requests_ended(client, outcome) for outcome in ("cancelled", "internal"))
    upload(served).close()
    for _ in range(600):
        if requests_ended(client, "cancelled") > cancelled:
            break
        time.sleep(0.05)
    assert requests_ended(client, "cancelled") == cancelled + 1
    assert requests_ended(client, "internal") == internal


def test_a_client_may_ask_again_after_a_refusal_at_admission(served: Served) -> None:
    with httpx.Client(base_url=served.address.http, timeout=30) as client:
        served.policy.reserve_error = Overloaded("full")
        assert [client.post("/v1/plan", json=GOOD).status_code for _ in range(3)] == [429] * 3
        served.policy.reserve_error = None
        assert client.post("/v1/plan", json=GOOD).status_code == 200


def test_a_connection_survives_a_refused_request(served: Served) -> None:
    robot = JsonRobot(served.address)
    assert robot.plan(example_observation(policy="other")).code == 404
    assert robot.plan(example_observation()).code == 200
    robot.close()


def requests_ended(client: httpx.Client, outcome: str) -> float:
    found = re.search(rf'wavserve_requests_total{{edge="http",outcome="{outcome}"}} (.*)', client.get("/metrics").text)
    return float(found[1]) if found else 0.0


def upload(served: Served, *headers: str) -> socket.socket:
    """A connection on which the headers of a request and one byte of its body were sent."""
    link = connect(served.address)
    head = "POST /v1/plan HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 50000\r\n"
    link.sendall(f"{head}{''.join(f'{header}{chr(13)}{chr(10)}' for header in headers)}\r\n{{".encode())
    return link
