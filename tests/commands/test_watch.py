"""`wavserve watch` against a gateway with robots: what a person sees, and what a program reads."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import grpc
import pytest

from tests.clients.chunks import chunk_of, line
from tests.clients.servers import SERVICE, black_hole
from wavserve.cli import main
from wavserve.commands import output
from wavserve.commands.watch import follow
from wavserve.core.control import ExecutionReport, HoldReason, RobotStatus
from wavserve.core.errors import NotReady
from wavserve.wire.control_answers import watch_interval_s, watch_update

ROBOT = RobotStatus(
    robot_id="arm-1",
    embodiment="piper_dual",
    client="wavserve-robot-client 0.1.0",
    peer="127.0.0.1",
    epoch=2,
    connected_s=3725.0,
    instruction="pour",
    observations=40,
    chunks=31,
    dropped=8,
    errors=1,
    plan_ms_p50=81.4,
    plan_ms_p95=120.6,
    last_chunk=chunk_of(line(0, 1, 54), 512),
    last_chunk_age_s=0.27,
    last_report=ExecutionReport(
        seam_jump=0.0125, starved_steps=3, hold_reason=HoldReason.LINK_LOST, faults=("can\x1b[2J",)
    ),
)
NEW = replace(ROBOT, robot_id="b\x1b[31m", chunks=0, last_chunk=None, last_report=None, connected_s=1.0)


@contextmanager
def watched(*updates: list[RobotStatus]) -> Iterator[tuple[str, list[float]]]:
    """A server whose robots are these. Gives its address, and the intervals that onlookers asked for."""
    asked: list[float] = []

    def tell(raw: bytes, _: Any) -> Iterator[bytes]:
        asked.append(watch_interval_s(raw))
        yield from (watch_update(robots).SerializeToString() for robots in updates)

    server = grpc.server(ThreadPoolExecutor(2))
    methods = {"Watch": grpc.unary_stream_rpc_method_handler(tell)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield address, asked
    finally:
        server.stop(None).wait(10)


def test_one_look_shows_a_line_for_each_robot(capsys: pytest.CaptureFixture[str]) -> None:
    with watched([ROBOT, NEW]) as (address, asked):
        assert main(["watch", address, "--once", "--interval", "0.5"]) == 0
    title, _, header, first, second = capsys.readouterr().out.splitlines()
    assert title == f"{address}: 2 robots"
    assert header.split()[:3] == ["ROBOT", "CLIENT", "EPOCH"]
    cells = ["arm-1", "wavserve-robot-client 0.1.0", "2", "1:02:05", "31", "81 ms", "121 ms", "512+54", "0.3 s"]
    cells += ["met_degraded", "8", "1", "0.013", "3", r"holds: link_lost (can\x1b[2J)"]
    assert re.split(r"  +", first) == cells
    assert r"b\x1b[31m" in second
    assert "\x1b" not in title + header + first + second
    assert asked == [0.5]


def test_each_look_is_a_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    with watched([ROBOT]) as (address, _):
        assert main(["watch", address, "--once", "--json"]) == 0
    [robot] = json.loads(capsys.readouterr().out)["robots"]
    assert (robot["robot_id"], robot["last_chunk"]["first_control_step"]) == ("arm-1", 512)
    assert robot["last_report"]["hold_reason"] == "link_lost"


def test_a_server_that_does_not_answer_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch", "nowhere", "--once"]) == 1
    assert "HOST:PORT" in capsys.readouterr().err
    with black_hole() as address:
        assert main(["watch", address, "--once"]) == 1
    assert address in capsys.readouterr().err


def nobody() -> Iterator[Any]:
    raise NotReady("nobody there")


def test_a_server_that_stops_is_followed_again(capsys: pytest.CaptureFixture[str]) -> None:
    looks = iter([lambda: iter([["a"], ["b"]]), lambda: iter([["c"]]), nobody])
    shown: list[Any] = []

    def pause(seconds: float) -> None:
        shown.append("pause")
        if shown.count("pause") == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        follow(lambda: next(looks)(), shown.append, pause)  # noqa: PLW0108  # another look each time
    assert shown == [["a"], ["b"], "pause", ["c"], "pause", "pause"]
    assert capsys.readouterr().err.splitlines() == ["the server stops", "the server stops", "nobody there"]


def test_a_page_that_is_no_terminal_has_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    output.page("one")
    output.page("two")
    assert capsys.readouterr().out == "one\n\ntwo\n\n"
