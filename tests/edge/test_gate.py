"""A chunk that the gate cuts or refuses, over both edges: the same facts, and a session that only a cut advances."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, replace
from typing import Any

import grpc
import httpx
import numpy as np
import pytest

from tests.edge.fakes import example_limits
from tests.planning.rig import Rig, RigOptions, example_spec, rigged
from wavserve.clients.async_client import AsyncPlanClient
from wavserve.core.errors import BrokenLimit, UnsafeChunk
from wavserve.core.messages import ActionChunk, EncodedImage, Observation
from wavserve.core.spec import LimitsSpec
from wavserve.edge.grpc.plan import create_grpc_server
from wavserve.edge.http.answer_schemas import ChunkAnswer, Problem
from wavserve.edge.http.api import create_http_app
from wavserve.pb import wavserve_pb2 as pb
from wavserve.pb.wavserve_pb2_grpc import PlanServiceStub
from wavserve.system.telemetry import Metrics
from wavserve.wire import requests

SPEC = example_spec()
NOTHING = LimitsSpec(position=(None, (50.0, 60.0)))
"""limits that no action of the fake keeps"""


@dataclass(frozen=True)
class Edges:
    """Both edges over one policy with limits."""

    rig: Rig
    metrics: Metrics
    http: httpx.AsyncClient
    client: AsyncPlanClient
    address: str

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    async def ask_http(self, **changes: Any) -> httpx.Response:
        images = [
            {"camera": c.name, "encoding": "raw_rgb8", "height": 8, "width": 8, "data": "AAAA" * 64}
            for c in SPEC.cameras
        ]
        body = {"instruction": "go", "state": [0.0] * 3, "seed": 1, "images": images, **changes}
        return await self.http.post("/v1/plan", json=body)

    async def ask_grpc(self, **changes: Any) -> ActionChunk:
        return await self.client.plan(observation(**changes))


def observation(**changes: Any) -> Observation:
    images = tuple(EncodedImage(c.name, "raw_rgb8", bytes(192), 8, 8) for c in SPEC.cameras)
    return replace(Observation(images=images, state=(0.0,) * 3, instruction="go", seed=1), **changes)


MakeEdges = Callable[[LimitsSpec], Awaitable[Edges]]


@pytest.fixture
async def make_edges() -> AsyncIterator[MakeEdges]:
    async with AsyncExitStack() as stack:

        async def make(limits: LimitsSpec) -> Edges:
            metrics = Metrics()
            vector = replace(SPEC.action.vector, names=("a", "b"))
            spec = replace(SPEC, action=replace(SPEC.action, vector=vector, limits=limits))
            options = RigOptions(
                spec=spec, on_broken=lambda outcome, broken: metrics.plans.gated(outcome, broken.limit, broken.name)
            )
            rig = await stack.enter_async_context(rigged(options))
            server = create_grpc_server(rig.policy, example_limits(), metrics)
            address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
            await server.start()
            stack.push_async_callback(server.stop, None)
            transport = httpx.ASGITransport(create_http_app(rig.policy, example_limits(), metrics))
            http = await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url="http://in-process"))
            client = AsyncPlanClient(address)
            stack.push_async_callback(client.close)
            return Edges(rig, metrics, http, client, address)

        yield make


async def test_a_cut_chunk_is_told_alike(make_edges: MakeEdges) -> None:
    whole = await (await make_edges(LimitsSpec())).ask_grpc()
    assert whole.cut is None
    speed = np.abs(np.diff(whole.actions[:, 1].astype(np.float64))) * SPEC.control_hz
    step, bound = int(speed.argmax()) + 1, float(np.sort(speed)[-2:].mean())
    edges = await make_edges(LimitsSpec(velocity=(None, bound)))
    over_grpc = await edges.ask_grpc(control_step=7)
    np.testing.assert_array_equal(over_grpc.actions, whole.actions[:step])
    assert over_grpc.valid_until_step == 7 + step
    cut = over_grpc.cut
    assert cut is not None
    assert (cut.step, cut.dimension, cut.name, cut.limit, cut.bound) == (step, 1, "b", "velocity", bound)
    over_http = (await edges.ask_http(control_step=7)).json()
    ChunkAnswer.model_validate(over_http)
    assert over_http["cut"] == asdict(cut)
    assert (over_http["horizon"], over_http["valid_until_step"], len(over_http["actions"])) == (step, 7 + step, step)
    assert edges.count("wavserve_gated_plans_total", outcome="cut", limit="velocity", dimension="b") == 2


async def test_both_edges_tell_whether_the_memory_is_fresh(make_edges: MakeEdges) -> None:
    edges = await make_edges(LimitsSpec())
    opened = await edges.ask_grpc()
    assert opened.fresh_memory
    assert not (await edges.ask_grpc(session_id=opened.session_id, sequence=1)).fresh_memory
    answers = [(await edges.ask_http(session_id=opened.session_id, sequence=2)).json(), (await edges.ask_http()).json()]
    assert [(answer["fresh_memory"], answer["cut"]) for answer in answers] == [(False, None), (True, None)]


async def test_a_refused_chunk_is_told_alike_and_opens_no_session(make_edges: MakeEdges) -> None:
    edges = await make_edges(NOTHING)
    with pytest.raises(UnsafeChunk) as refused:
        await edges.ask_grpc()
    broken = refused.value.broken
    assert broken is not None
    assert (broken.step, broken.dimension, broken.name, broken.limit, broken.bound) == (0, 1, "b", "position", 50.0)
    assert refused.value.retryable
    assert refused.value.error_id is not None
    response = await edges.ask_http()
    problem: Mapping[str, Any] = response.json()
    Problem.model_validate(problem)
    assert response.status_code == 502
    assert (problem["type"], problem["retryable"]) == ("urn:wavserve:problem:unsafe-chunk", True)
    assert {name: problem[name] for name in asdict(broken)} == asdict(broken)
    assert problem["detail"] == refused.value.message
    assert len(edges.rig.sessions) == 0
    assert edges.count("wavserve_gated_plans_total", outcome="refused", limit="position", dimension="b") == 2
    for edge in ("http", "grpc"):
        assert edges.count("wavserve_requests_total", edge=edge, outcome="unsafe-chunk") == 1


async def test_grpc_answers_a_refused_chunk_with_aborted(make_edges: MakeEdges) -> None:
    """UNAVAILABLE would make channels with a retry policy send the same request again by themselves."""
    edges = await make_edges(NOTHING)
    async with grpc.aio.insecure_channel(edges.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await PlanServiceStub(channel).Plan(requests.plan_request(observation()))
    assert failed.value.code() is grpc.StatusCode.ABORTED


def test_a_chunk_says_where_it_was_cut_in_the_protos_own_words() -> None:
    assert [field.name for field in pb.GateCut.DESCRIPTOR.fields] == list(BrokenLimit.__dataclass_fields__)
