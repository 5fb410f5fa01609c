"""The robot clients against served edges: they return answers and raise our typed errors."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from tests.edge.fakes import example_chunk_of, example_observation, example_spec
from tests.edge.served import Served
from wavserve.clients.async_client import AsyncPlanClient
from wavserve.clients.plan_client import PlanClient
from wavserve.core.errors import (
    DeadlineExceeded,
    InvalidRequest,
    NotReady,
    Overloaded,
    SequenceConflict,
    UnknownPolicy,
    UnknownSession,
    WavserveError,
)


@pytest.fixture(params=["grpc", "http"])
def target(request: pytest.FixtureRequest, served: Served) -> str:
    address: str = getattr(served.address, request.param)
    return address


@pytest.fixture
def client(target: str) -> Iterator[PlanClient]:
    with PlanClient(target) as connected:
        yield connected


def test_a_plan_arrives_complete(client: PlanClient, served: Served) -> None:
    chunk = client.plan(example_observation(sequence=4, control_step=32, imagine_chunks=1))
    (request,) = served.policy.requests
    result = example_chunk_of(example_spec(), request)
    assert chunk.actions.tobytes() == result.actions.tobytes()
    assert (chunk.session_id, chunk.sequence, chunk.first_control_step) == (result.session_id, 4, 32)
    assert chunk.receipt.config == result.receipt.config
    assert np.array_equal(chunk.receipt.iterations[1].scores, result.receipt.iterations[1].scores)
    assert [len(frames) for frames in chunk.imagined.values()] == [2, 2]


def test_the_policys_facts_arrive(client: PlanClient) -> None:
    info = client.policy()
    spec = example_spec()
    assert (info.name, info.cameras, info.defaults, info.bounds) == (spec.name, spec.cameras, spec.planner, spec.bounds)
    with pytest.raises(UnknownPolicy):
        client.policy("other")


def test_a_refusal_is_a_typed_error(client: PlanClient, served: Served) -> None:
    with pytest.raises(InvalidRequest) as caught:
        client.plan(example_observation(state=(0.0,)))
    assert (caught.value.field, caught.value.expected, caught.value.actual) == ("state", "8 numbers", "1 numbers")
    served.policy.error = SequenceConflict("sequence", "more than 7", 7)
    with pytest.raises(SequenceConflict, match="sequence: expected more than 7, got 7"):
        client.plan(example_observation())
    served.policy.error = Overloaded("full", 2.5)
    with pytest.raises(Overloaded) as full:
        client.plan(example_observation())
    assert full.value.retry_after_s == 2.5


def test_the_end_of_a_session_reaches_the_server(client: PlanClient, served: Served) -> None:
    client.end("s")
    assert served.policy.ended == ["s"]
    assert served.policy.resets == []


def test_reset_reaches_the_server_and_raises_its_error(client: PlanClient, served: Served) -> None:
    client.reset("s")
    assert served.policy.resets == ["s"]
    served.policy.error = UnknownSession("session_id", "a session", "'s'")
    with pytest.raises(UnknownSession):
        client.reset("s")


def test_an_internal_error_has_an_id(client: PlanClient, served: Served) -> None:
    served.policy.error = ZeroDivisionError("/secret/path")
    with pytest.raises(WavserveError, match="urn:uuid:") as caught:
        client.plan(example_observation())
    assert type(caught.value) is WavserveError


def test_a_timeout_cancels_the_plan(client: PlanClient, served: Served) -> None:
    started, cancelled = threading.Event(), threading.Event()
    served.policy.hold, served.policy.started, served.policy.cancelled = True, started.set, cancelled.set
    with pytest.raises(DeadlineExceeded):
        client.plan(example_observation(), timeout_s=2.0)
    assert started.is_set()
    assert cancelled.wait(30)


def test_an_unreachable_server_is_not_ready() -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    with PlanClient(f"127.0.0.1:{port}") as client, pytest.raises(NotReady, match=f"127.0.0.1:{port}"):
        client.policy()


def test_the_client_needs_the_base_install_only() -> None:
    program = (
        "import sys, wavserve.clients.plan_client\n"
        "server = {'torch', 'fastapi', 'pydantic', 'PIL', 'orjson', 'prometheus_client', 'wavserve.edge'}\n"
        "sys.stdout.write(' '.join(server & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout == ""


async def test_the_async_client_returns_answers_and_raises_refusals(target: str, served: Served) -> None:
    async with AsyncPlanClient(target) as client:
        chunk = await client.plan(example_observation(sequence=4, deadline_ms=60_000))
        assert (chunk.sequence, chunk.receipt.sequence) == (4, 4)
        served.policy.error = Overloaded("full", 0.25)
        with pytest.raises(Overloaded, match="full") as caught:
            await client.plan(example_observation())
        assert caught.value.retry_after_s == 0.25


async def test_an_unreachable_server_is_not_ready_for_the_async_client() -> None:
    with socket.socket() as reserved:  # the port is bound but nobody listens
        reserved.bind(("127.0.0.1", 0))
        async with AsyncPlanClient(f"127.0.0.1:{reserved.getsockname()[1]}") as client:
            with pytest.raises(NotReady, match="no service answers: Connection refused"):
                await client.plan(example_observation(), timeout_s=5.0)
