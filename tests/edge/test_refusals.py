"""A plan that is refused and a plan that missed its deadline are told apart, alike on both edges and in the metrics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import pytest

from tests.edge.fakes import example_limits
from tests.planning.rig import Rig, RigOptions, example_spec, rigged
from wavserve.clients.async_client import AsyncPlanClient
from wavserve.core.errors import DeadlineExceeded
from wavserve.core.messages import EncodedImage, Observation
from wavserve.edge.grpc.plan import create_grpc_server
from wavserve.edge.http.api import create_http_app
from wavserve.policy.parts import PolicyParts
from wavserve.policy.placement import Placement
from wavserve.policy.policy import Policy
from wavserve.system.telemetry import Metrics

DECODE_S = 0.4
"""The shortest decode; a plan with less time is refused."""


class Edges:
    """Both edges over one policy."""

    def __init__(self, rig: Rig, metrics: Metrics, http: httpx.AsyncClient, grpc: AsyncPlanClient) -> None:
        self.rig, self.metrics, self.http, self.grpc = rig, metrics, http, grpc

    def count(self, result: str) -> float:
        return self.metrics.registry.get_sample_value("wavserve_plans_total", {"deadline": result}) or 0.0

    async def ask_http(self, deadline_ms: int, in_header: bool) -> Mapping[str, Any]:
        """The problem that an observation over HTTP is answered with."""
        fields = {"instruction": "go", "state": [0.0] * 3, "deadline_ms": None if in_header else deadline_ms}
        images = [
            {"camera": c.name, "encoding": "raw_rgb8", "height": 8, "width": 8, "data": "AAAA" * 64} for c in cameras
        ]
        header = {"x-deadline-ms": str(deadline_ms)} if in_header else {}
        response = await self.http.post("/v1/plan", json=fields | {"images": images}, headers=header)
        assert response.status_code == 504
        problem: Mapping[str, Any] = response.json()
        return problem

    async def ask_grpc(self, deadline_ms: int) -> DeadlineExceeded:
        """The error that an observation over gRPC is answered with."""
        images = tuple(EncodedImage(c.name, "raw_rgb8", bytes(192), 8, 8) for c in cameras)
        with pytest.raises(DeadlineExceeded) as error:
            await self.grpc.plan(
                Observation(images=images, state=(0.0,) * 3, instruction="go", deadline_ms=deadline_ms)
            )
        return error.value


cameras = example_spec().cameras


@pytest.fixture
async def edges() -> AsyncIterator[Edges]:
    async def decode_slowly(verb: str) -> None:
        await asyncio.sleep(DECODE_S if verb == "decode" else 0.0)

    async with rigged(RigOptions(before=decode_slowly)) as rig:
        metrics = Metrics()
        parts = PolicyParts(
            rig.spec,
            "fake",
            Placement([rig.device], wait_s=5.0),
            rig.sessions,
            max_plans=16,
            version="0",
            on_missed=metrics.plans.missed,
            on_refused=metrics.plans.refused,
        )
        policy = Policy(parts)
        await policy.warm_up()
        server = create_grpc_server(policy, example_limits(), metrics)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        transport = httpx.ASGITransport(create_http_app(policy, example_limits(), metrics))
        async with httpx.AsyncClient(transport=transport, base_url="http://in-process") as http:
            client = AsyncPlanClient(f"127.0.0.1:{port}")
            yield Edges(rig, metrics, http, client)
            await client.close()
        await server.stop(None)


async def test_a_refusal_is_no_missed_deadline_wherever_the_deadline_stands(edges: Edges) -> None:
    for asked, in_header in enumerate((True, False), start=1):
        problem = await edges.ask_http(200, in_header)
        assert "deadline" not in problem
        assert "slack_ms" not in problem
        assert (edges.count("refused"), edges.count("missed")) == (asked, 0)
    error = await edges.ask_grpc(200)
    assert error.missed is None
    assert (edges.count("refused"), edges.count("missed")) == (3, 0)
    assert not edges.rig.policy.plans_in_flight


async def test_a_missed_deadline_is_told_and_counted_alike(edges: Edges) -> None:
    async def hang(verb: str) -> None:
        await asyncio.sleep(60.0)

    edges.rig.backend.before = hang
    problem = await edges.ask_http(1500, in_header=False)
    assert problem["deadline"] == "missed"
    assert problem["slack_ms"] <= 0
    assert (edges.count("refused"), edges.count("missed")) == (0, 1)
    error = await edges.ask_grpc(1500)
    assert error.missed is not None
    assert error.missed.slack_ms <= 0
    assert (edges.count("refused"), edges.count("missed")) == (0, 2)
