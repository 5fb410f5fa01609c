"""The plugin's connection to a served policy: the contract first, then sessions with seeds of their own."""

from __future__ import annotations

from typing import Any

import pytest

from lerobot_policy_wavserve.connection import Connection, Where
from lerobot_policy_wavserve.sessions import Asking
from tests.clients.gateways import gateway
from tests.collector import Collector, serving
from tests.edge.conftest import running, served
from tests.edge.served import Served
from tests.integrations.policies import KEYS, assumed, seen
from wavserve.core.errors import ContractMismatch, InvalidRequest, NotReady

__all__ = ["running", "served"]


@pytest.mark.parametrize("transport", ["grpc", "http"])
def test_the_policy_is_compared_before_anything_is_asked(served: Served, transport: Any) -> None:
    where = Where(address=getattr(served.address, transport), transport=transport)
    with pytest.raises(ContractMismatch, match="untrained"):
        Connection(where, assumed(allow_untrained=False), Asking())
    assert not served.policy.requests
    connection = Connection(where, assumed(), Asking())
    assert connection.cameras == {KEYS[0]: "agentview", KEYS[1]: "wrist"}
    assert len(connection.sessions.plan([seen()], 0)) == 1
    connection.close()


def test_each_session_has_the_next_seed(served: Served) -> None:
    connection = Connection(Where(address=served.address.grpc, seed=40), assumed(), Asking())
    for _ in range(2):
        connection.sessions.plan([seen(0), seen(1)], 0)
        connection.sessions.plan([seen(0), seen(1)], 4)
        connection.sessions.reset()
    connection.close()
    by_step = {
        step: sorted(each.seed for each in served.policy.requests if each.control_step == step) for step in (0, 4)
    }
    assert by_step == {0: [40, 41, 42, 43], 4: [40, 41, 42, 43]}


def test_on_a_stream_each_environment_is_a_robot() -> None:
    with gateway() as server:
        connection = Connection(Where(address=server.address, transport="stream", robot_id="sim"), assumed(), Asking())
        connection.sessions.plan([seen(0), seen(1)], 0)
        connection.close()
        assert sorted(stream.hello.robot_id for stream in server.streams) == ["sim-0", "sim-1"]


def test_no_service_is_an_error_at_once(served: Served) -> None:
    with pytest.raises(NotReady):
        Connection(Where(address="127.0.0.1:1"), assumed(), Asking())


@pytest.mark.parametrize("transport", ["grpc", "http", "stream"])
def test_spans_of_plans_reach_the_collector_that_the_user_names(served: Served, transport: Any) -> None:
    with serving(Collector()) as collector, gateway() as streams:
        address = streams.address if transport == "stream" else getattr(served.address, transport)
        where = Where(address=address, transport=transport, traces=collector.endpoint)
        connection = Connection(where, assumed(), Asking())
        connection.sessions.plan([seen()], 0)
        connection.close()
        assert {each.service for each in collector.spans} == {"wavserve-lerobot"}
        assert "robot.plan" in {each.name for each in collector.spans}


def test_a_collector_that_is_none_is_refused_with_the_field() -> None:
    with pytest.raises(InvalidRequest, match="traces: expected http://HOST:PORT"):
        Connection(Where(address="127.0.0.1:1", traces="127.0.0.1:4318"), assumed(), Asking())
