"""What the example policies of the tests share. Sizes, cameras and planner defaults are each test folder's own."""

from __future__ import annotations

from typing import Any

from wavserve.core.spec import ActionSpec, NormSpec, PolicySpec, RtcSpec, VectorSpec


def example_vector(dim: int) -> VectorSpec:
    """A vector in metres whose statistics change nothing: [-1, 1] maps to [-1, 1]."""
    names = tuple(f"x{i}" for i in range(dim))
    return VectorSpec(names, ("m",) * dim, NormSpec("minmax", (-1.0,) * dim, (1.0,) * dim))


def example_policy(state_dim: int, action_dim: int, **own: Any) -> PolicySpec:
    """An untrained policy named `example`; `own`: the fields of `PolicySpec` that each test folder chooses."""
    own.setdefault("rtc", RtcSpec(execution_horizon=min(10, own["chunk"])))
    return PolicySpec(
        name="example",
        untrained=True,
        state=example_vector(state_dim),
        action=ActionSpec(example_vector(action_dim)),
        memory_threshold=1,
        max_instruction_bytes=64,
        max_prompt_tokens=64,
        **own,
    )
