"""The JSON body of a good request, and variations of it."""

from __future__ import annotations

from typing import Any

from tests.edge.fakes import example_observation
from tests.edge.robots import body_of

GOOD = body_of(example_observation())


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in GOOD.items() if key != name}


def with_image(**changes: object) -> dict[str, Any]:
    """The good body with the first image changed."""
    return GOOD | {"images": [GOOD["images"][0] | changes, GOOD["images"][1]]}
