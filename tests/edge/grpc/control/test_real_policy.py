"""A robot's stream over real models: the same plans as unary requests, and pings while they are computed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from tests.edge.grpc.control.links import Gate, Server, serving_policy
from wavserve.app.service import assemble
from wavserve.app.settings import Settings
from wavserve.bundle.bundle import Bundle
from wavserve.core.control import Ping, Pong
from wavserve.core.messages import ActionChunk, Observation
from wavserve.wire.answers import chunk_from
from wavserve.wire.requests import plan_request

OPTIONS = {"num_iterations": 1, "num_video_samples": 4, "num_value_samples": 4}


@pytest.fixture
async def real(tiny: Bundle) -> AsyncIterator[Server]:
    facts = {"bundle": {"path": str(tiny.folder)}, "backend": {"kind": "local", "compile": "off"}}
    service = await assemble(Settings.model_validate(facts | {"log": {"level": "warning"}}))
    service.policy.skip_warm_up()
    try:
        async with serving_policy(service.policy, Gate()) as server:
            yield server
    finally:
        await service.close()


async def test_a_stream_gets_the_plans_of_unary_requests(real: Server) -> None:
    link = real.link()
    await link.open()
    unary: ActionChunk | None = None
    for sequence in range(3):
        sent = link.observation(sequence, seed=sequence, executed_steps=4 * bool(sequence), options=OPTIONS)
        await link.send(sent)
        chunk = await link.receive(ActionChunk)
        shared: dict[str, Any] = {name: getattr(sent, name) for name in ("images", "state", "sequence", "seed")}
        request = Observation(
            instruction="pick",
            options=OPTIONS,
            executed_steps=sent.executed_steps,
            session_id=None if unary is None else unary.session_id,
            **shared,
        )
        unary = chunk_from(await real.stub.Plan(plan_request(request)))  # type: ignore[misc]  # the stub is aio's
        np.testing.assert_array_equal(chunk.actions, unary.actions)
        assert chunk.receipt.digests == unary.receipt.digests
        assert (chunk.epoch, unary.epoch, chunk.fresh_memory) == (1, 0, sequence == 0)


async def test_pings_are_answered_while_models_compute(real: Server) -> None:
    link = real.link()
    await link.open()
    long = {**OPTIONS, "num_iterations": 4, "num_video_samples": 16}
    await link.send(link.observation(0, options=long))
    answered = 0
    while True:
        await link.send(Ping(answered))
        match await link.receive(object):
            case Pong():
                answered += 1
            case ActionChunk() as chunk:
                break
        await asyncio.sleep(0.01)
    assert chunk.receipt.iterations_done == 4
    assert answered > 3


async def test_sixteen_robots_share_the_models(real: Server) -> None:
    links = [real.link(f"robot-{number}") for number in range(16)]
    await asyncio.gather(*(link.open() for link in links))
    for link in links:
        await link.send(link.observation(0, options=OPTIONS))
    chunks = await asyncio.gather(*(link.receive(ActionChunk) for link in links))
    assert len({chunk.session_id for chunk in chunks}) == 16
    for chunk in chunks[1:]:
        np.testing.assert_allclose(chunk.actions, chunks[0].actions, atol=1e-5)
