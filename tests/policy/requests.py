"""Requests of a robot: the first one opens a session, the others follow in it."""

from __future__ import annotations

from tests.planning.rig import example_request, example_spec
from wavserve.core.messages import ActionChunk
from wavserve.core.types import PlanRequest

SPEC = example_spec()


def first(seed: int = 1, **changes: object) -> PlanRequest:
    """A request that opens a session."""
    return example_request(SPEC, seed, **changes)


def follow(answer: ActionChunk, seed: int = 1, **changes: object) -> PlanRequest:
    """A further request in the session of an answer."""
    return example_request(SPEC, seed, session_id=answer.session_id, **changes)
