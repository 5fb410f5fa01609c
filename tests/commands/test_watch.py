"""`wavserve watch` against a gateway with robots: what a person sees, and what a program reads."""

from __future__ import annotations

import io
import json
import re
from argparse import Namespace
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from tests.clients.chunks import chunk_of, line
from tests.clients.servers import SERVICE, black_hole, resetting
from wavserve.cli import main
from wavserve.clients.onlooker import Onlookers, Seen, follow
from wavserve.commands import output, watch
from wavserve.core.control import ExecutionReport, HoldReason, RobotStatus
from wavserve.core.errors import InvalidRequest, NotReady, WavserveError
from wavserve.system.processes import free_ports
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


def test_several_gateways_share_one_table(capsys: pytest.CaptureFixture[str]) -> None:
    with watched([ROBOT]) as (one, _), watched([NEW]) as (other, _):
        assert main(["watch", f"{one},{other}", "--once"]) == 0
        first, second, _, header, *rows = capsys.readouterr().out.splitlines()
        assert (first, second) == (f"{one}: 1 robot", f"{other}: 1 robot")
        assert header.split()[:2] == ["GATEWAY", "ROBOT"]
        assert [row.split()[:2] for row in rows] == [[one, "arm-1"], [other, r"b\x1b[31m"]]
        assert main(["watch", f"{one},{other}", "--once", "--json"]) == 0
    looks = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(look["gateway"], look["robots"][0]["epoch"]) for look in looks] == [(one, 2), (other, 2)]


def test_a_gateway_that_is_away_hides_no_robot_of_another_one(capsys: pytest.CaptureFixture[str]) -> None:
    absent = f"127.0.0.1:{free_ports(1)[0]}"
    with watched([ROBOT]) as (one, _):
        assert main(["watch", f"{absent},{one}", "--once"]) == 1
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith(f"{absent}: no service answers: ")
        assert lines[1] == f"{one}: 1 robot"
        assert lines[-1].split()[:2] == [one, "arm-1"]
        assert main(["watch", f"{absent},{one}", "--once", "--json"]) == 1
    told = capsys.readouterr()
    assert json.loads(told.out)["gateway"] == one
    assert f"{absent}: no service answers" in told.err


def test_a_gateway_that_stops_is_not_one_without_robots(capsys: pytest.CaptureFixture[str]) -> None:
    """It ends the call without a look, and its robots may still be there. Its own words do not name it."""
    with watched() as (stopping, _), watched([ROBOT]) as (one, _):
        for several in (stopping, f"{stopping},{one}"):
            assert main(["watch", several, "--once", "--json"]) == 1
            assert f"{stopping}: the server stops" in capsys.readouterr().err
        assert main(["watch", stopping, "--once"]) == 1
        assert f"{stopping}: the server stops" in capsys.readouterr().err


def test_all_gateways_are_followed_and_a_robot_is_not_shown_where_it_was() -> None:
    """The first gateway ends after one look. The other one goes on."""
    with watched([ROBOT]) as (one, _), watched([], [NEW]) as (other, _), Onlookers([one, other]) as onlookers:
        seen: dict[str, list[Seen]] = {one: [], other: []}
        for gateway, told in onlookers.follow(0.1):
            seen[gateway].append(told)
            if len(seen[one]) >= 4 and len(seen[other]) >= 3:
                break
    looks = {each: [_ids(told) for told in seen[each]] for each in (one, other)}
    assert looks[one][:4] == [["arm-1"], "the server stops", ["arm-1"], "the server stops"]
    assert looks[other][:3] == [[], [NEW.robot_id], "the server stops"]


def _ids(told: Seen) -> object:
    return told.message if isinstance(told, WavserveError) else [robot.robot_id for robot in told]


def nobody() -> Iterator[Any]:
    raise NotReady("nobody there")


def refused() -> Iterator[Any]:
    raise InvalidRequest("interval_s", "0.1 to 60", 99)


def test_a_server_that_stops_is_followed_again_and_what_no_attempt_mends_is_the_last() -> None:
    looks = iter([lambda: iter([["a"], ["b"]]), lambda: iter([["c"]]), nobody, refused])
    told: list[Any] = []
    follow(lambda: next(looks)(), told.append, lambda _: told.append("pause"))  # noqa: PLW0108  # another look each time
    texts = [str(each) if isinstance(each, WavserveError) else each for each in told]
    assert texts[:3] == [["a"], ["b"], "the server stops"]
    assert texts[3:-1] == ["pause", ["c"], "the server stops", "pause", "nobody there", "pause"]
    assert texts[-1].startswith("interval_s: expected 0.1 to 60")


def test_what_no_attempt_mends_is_told_also_when_nobody_expected_it(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> Iterator[Any]:
        raise ZeroDivisionError("a bug")

    told: list[Any] = []
    follow(broken, told.append, lambda _: told.append("pause"))
    [last] = told
    assert isinstance(last, WavserveError)
    assert not last.retryable
    assert "ZeroDivisionError: a bug" in str(last)
    assert "ZeroDivisionError" in caplog.text


def test_an_error_of_one_gateway_ends_the_live_page_of_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    """It ends when no gateway is left that could tell anything."""
    lost, other = InvalidRequest("interval_s", "0.1 to 60", 99), InvalidRequest("interval_s", "0.1 to 60", 98)
    args = Namespace(interval=1.0, json=False)
    told: list[tuple[str, Any]] = [("a:1", lost), ("b:2", [])]
    onlookers: Any = SimpleNamespace(targets=("a:1", "b:2"), follow=lambda interval_s: iter(told))
    assert watch._follow(onlookers, args) == 0
    assert capsys.readouterr().out.count("a:1: interval_s: expected") == 2, "its line stays"
    told.append(("b:2", other))
    with pytest.raises(InvalidRequest, match="98"):
        watch._follow(onlookers, args)


def test_the_live_page_ends_with_an_error_that_no_attempt_mends(capsys: pytest.CaptureFixture[str]) -> None:
    with resetting() as address:
        assert main(["watch", address]) == 1
    assert address in capsys.readouterr().err


def test_a_page_that_is_no_terminal_has_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    output.page("one")
    output.page("two")
    assert capsys.readouterr().out == "one\n\ntwo\n\n"


def test_a_program_behind_a_pipe_reads_each_look_at_once() -> None:
    """A pipe's buffer holds many looks."""
    pipe = io.BytesIO()
    with redirect_stdout(io.TextIOWrapper(pipe, write_through=False)):
        output.write("a look")
        assert pipe.getvalue() == b"a look\n"
