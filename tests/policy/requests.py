"""Requests of a robot: the first one opens a session, the others follow in it. And a plan that only takes its place."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.planning.rig import example_request, example_spec
from wavserve.core.messages import ActionChunk
from wavserve.core.types import PlanRequest
from wavserve.planning.device import Device
from wavserve.policy.placement import Placement

SPEC = example_spec()


def first(seed: int = 1, **changes: object) -> PlanRequest:
    """A request that opens a session."""
    return example_request(SPEC, seed, **changes)


def follow(answer: ActionChunk, seed: int = 1, **changes: object) -> PlanRequest:
    """A further request in the session of an answer."""
    return example_request(SPEC, seed, session_id=answer.session_id, **changes)


@asynccontextmanager
async def placed(placement: Placement) -> AsyncIterator[Device]:
    """The device of a plan that is admitted everywhere."""
    async with placement.place(lambda device: device) as (device, admitted):
        assert admitted is device
        yield device
