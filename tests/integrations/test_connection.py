"""The plugin's connection to a served policy: the contract first, then sessions with seeds of their own."""

from __future__ import annotations

from typing import Any

import pytest

from lerobot_policy_wavserve.connection import Connection, Where
from lerobot_policy_wavserve.sessions import Asking
from tests.clients.gateways import gateway
from tests.edge.conftest import running, served
from tests.edge.served import Served
from tests.integrations.policies import KEYS, assumed, seen
from wavserve.core.errors import ContractMismatch, NotReady

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
