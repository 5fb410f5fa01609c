"""Observations that the service does not plan: each is told why, and the stream goes on."""

from __future__ import annotations

import pytest

from tests.edge.fakes import RecordingPolicy, example_limits
from tests.edge.grpc.control.links import Gate, Server, example_message, serving_policy
from wavserve.core.control import DropReason, ObservationDropped, StreamError
from wavserve.core.errors import (
    DeadlineExceeded,
    MissedDeadline,
    ModelDown,
    NotReady,
    Overloaded,
    SequenceConflict,
    StaleEpoch,
    UnknownSession,
)
from wavserve.core.messages import ActionChunk

MISSED = MissedDeadline(-5.0, 1, 6, 4)


async def sends(server: Server, policy: RecordingPolicy, error: BaseException) -> object:
    """What a robot gets for an observation whose plan fails."""
    link = server.link()
    await link.open()
    policy.error = error
    await link.send(example_message(0))
    return await link.receive(object)


@pytest.mark.parametrize(
    ("error", "dropped"),
    [
        (Overloaded("busy", 1.5), ObservationDropped(0, DropReason.OVERLOADED, 0, 1, 1500)),
        (DeadlineExceeded("it would be late"), ObservationDropped(0, DropReason.TOO_OLD, 0, 1)),
    ],
)
async def test_an_observation_that_is_refused_is_dropped(error: BaseException, dropped: ObservationDropped) -> None:
    policy = RecordingPolicy()
    async with serving_policy(policy, Gate(), example_limits()) as server:
        assert await sends(server, policy, error) == dropped
        policy.error = None
        await server.links[0].send(example_message(1))
        assert (await server.links[0].receive(ActionChunk)).sequence == 1
        assert server.counted("control_observations_total", outcome=dropped.reason.value) == 1


@pytest.mark.parametrize(
    ("error", "name", "retryable"),
    [
        (DeadlineExceeded("late", MISSED), "deadline-exceeded", False),
        (NotReady("the models are being repaired"), "not-ready", True),
        (ModelDown("gone"), "model-down", True),
        (SequenceConflict("sequence", "one", "two"), "sequence-conflict", False),
        (ValueError("a fault of ours"), "internal", False),
    ],
)
async def test_a_plan_that_fails_is_an_error_of_its_observation(
    error: BaseException, name: str, retryable: bool
) -> None:
    policy = RecordingPolicy()
    async with serving_policy(policy, Gate(), example_limits()) as server:
        told = await sends(server, policy, error)
        assert isinstance(told, StreamError)
        assert (told.name, told.sequence, told.retryable, told.fatal) == (name, 0, retryable, False)
        assert told.error_id
        policy.error = None
        await server.links[0].send(example_message(1))
        assert (await server.links[0].receive(ActionChunk)).sequence == 1


@pytest.mark.parametrize("error", [StaleEpoch("epoch", 2, 1), UnknownSession("session_id", "one", "none")])
async def test_an_error_of_the_session_ends_the_stream(error: BaseException) -> None:
    policy = RecordingPolicy()
    async with serving_policy(policy, Gate(), example_limits()) as server:
        told = await sends(server, policy, error)
        assert isinstance(told, StreamError)
        assert told.fatal
        assert (await server.links[0].end())[1]["type"] == told.name


async def test_a_message_that_is_too_large_is_an_error(server: Server) -> None:
    link = server.link()
    await link.open()
    large = example_message(0)
    large.observation.images[0].data = bytes(2_500_000)
    await link.send(large, link.observation(1))
    error = await link.receive(StreamError)
    assert (error.name, error.sequence, error.fatal) == ("too-large", 0, False)
    assert (await link.receive(ActionChunk)).sequence == 1
