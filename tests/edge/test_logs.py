"""What a sender writes forges no line of a log and moves no cursor of a terminal."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest

from tests.edge.fakes import example_image, example_observation
from tests.edge.robots import Robot
from tests.edge.served import Served
from wavserve.cli import main
from wavserve.system.log_lines import configure_logging

FORGED = "a\n2026-01-01 00:00:00 ERROR wavserve: forged\r\x1b[2J\x85\u2028\u202e\x7f"


@pytest.fixture(params=["text", "json"])
def log(request: pytest.FixtureRequest) -> Iterator[io.StringIO]:
    """The log as the service writes it."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    stream = io.StringIO()
    configure_logging("debug", request.param, stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.parametrize(
    "changes",
    [
        {"images": (example_image("agentview"), replace(example_image("wrist"), camera=FORGED))},
        {"images": (example_image("agentview"), replace(example_image("wrist"), encoding=FORGED))},
        {"policy": FORGED},
        {"session_id": FORGED * 9},
        {"options": {"mode": FORGED}},
        {"options": {FORGED: 1}},
    ],
    ids=["camera", "encoding", "policy", "session", "mode", "option"],
)
def test_a_refusal_is_one_line_of_characters_that_print(
    changes: dict[str, object], robot: Robot, served: Served, log: io.StringIO
) -> None:
    reply = robot.plan(example_observation(**changes))
    assert reply.code not in (200, "OK")
    lines = log.getvalue().split("\n")
    assert all(line.isprintable() for line in lines)
    assert not any(line.startswith("2026-01-01 00:00:00") for line in lines)
    assert all(text.isprintable() for text in reply.content.values() if isinstance(text, str))


def test_an_unexpected_error_forges_no_line(robot: Robot, served: Served, log: io.StringIO) -> None:
    served.policy.error = ZeroDivisionError(FORGED)
    robot.plan(example_observation())
    lines = log.getvalue().split("\n")
    assert any("ZeroDivisionError" in line for line in lines)
    assert all(line.isprintable() for line in lines)
    assert not any(line.startswith("2026-01-01 00:00:00") for line in lines)


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/nowhere%0Aforged"), ("DELETE", "/v1/plan"), ("GET", "/v1/plan")]
)
def test_a_path_or_method_that_is_unknown_is_logged(
    method: str, path: str, client: httpx.Client, log: io.StringIO
) -> None:
    problem = client.request(method, path).json()
    [line] = [line for line in log.getvalue().split("\n") if problem["instance"] in line]
    assert method in line
    assert problem["detail"].isprintable()


def test_the_command_line_shows_the_id_under_which_the_server_logged_a_refusal(
    served: Served, log: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "--server", served.address.grpc, "--state=1", "--instruction=x"]) == 1
    [told] = re.findall(r"urn:uuid:[-0-9a-f]{36}", capsys.readouterr().err)
    assert told in log.getvalue()
