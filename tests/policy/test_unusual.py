"""Warnings for states far outside the statistics: where they begin, what they say, and that they are counted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.planning.rig import MakeRig, RigOptions, example_request, example_spec
from wavserve.core.spec import NormSpec, VectorSpec
from wavserve.policy.unusual import UsualStates

MINMAX = NormSpec("minmax", (-1.0, 10.0), (1.0, 30.0))
MEANSTD = NormSpec("meanstd", (0.0, 20.0), (0.5, 5.0))


def outside(norm: NormSpec, *state: float) -> list[str]:
    names: list[str] = []
    vector = VectorSpec(("a", "b"), ("rad", "m"), norm)
    UsualStates(vector, names.append).warnings(np.array(state, np.float32))
    return names


@pytest.mark.parametrize(
    ("norm", "edges"), [(MINMAX, ((-3.0, 3.0), (-10.0, 50.0))), (MEANSTD, ((-3.0, 3.0), (-10.0, 50.0)))]
)
def test_it_begins_one_span_or_six_deviations_away(
    norm: NormSpec, edges: tuple[tuple[float, float], tuple[float, float]]
) -> None:
    (low, high), (lower, higher) = edges
    assert outside(norm, low, lower) == outside(norm, high, higher) == []
    assert outside(norm, low - 0.001, lower) == ["a"]
    assert outside(norm, high + 0.001, higher + 0.001) == ["a", "b"]
    assert outside(norm, high, lower - 0.001) == ["b"]


def test_a_constant_dimension_may_only_keep_its_value() -> None:
    constant = NormSpec("minmax", (0.5, 0.0), (0.5, 1.0))
    assert outside(constant, 0.5, 0.0) == []
    assert outside(constant, 0.51, 0.0) == ["a"]


def test_a_warning_names_few_dimensions() -> None:
    names = tuple(f"joint_{i}" for i in range(5))
    usual = UsualStates(VectorSpec(names, ("rad",) * 5, NormSpec("minmax", (0.0,) * 5, (1.0,) * 5)))
    (text,) = usual.warnings(np.full(5, 7.25, np.float32))
    assert text.startswith("state far outside what the policy was trained with: joint_0 is 7.25 rad (usual: -1 to 2), ")
    assert "joint_2" in text
    assert text.endswith(", and 2 more")
    (text,) = usual.warnings(np.array([0, 0, 0, 0, -1.5], np.float32))
    assert text.endswith(": joint_4 is -1.5 rad (usual: -1 to 2)")


async def test_an_answer_warns_and_a_retry_repeats_it(make_rig: MakeRig) -> None:
    spec = replace(example_spec(), untrained=False)
    seen: list[str] = []
    rig = await make_rig(RigOptions(spec=spec, on_unusual=seen.append))
    far = example_request(spec, state=np.array([0.0, 9.0, 0.0], np.float32))
    first = await rig.policy.plan(far)
    assert [text.count("x1 is 9 m") for text in first.warnings] == [1]
    again = await rig.policy.plan(replace(far, session_id=first.session_id))
    assert again.warnings == first.warnings
    assert seen == ["x1"]
    near = await rig.policy.plan(example_request(spec, seed=2))
    assert near.warnings == ()
