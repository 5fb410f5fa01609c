"""Planner options of a request: what a mode cannot do is refused, never left out silently."""

from __future__ import annotations

import pytest

from tests.planning.rig import example_spec
from wavserve.core.errors import InvalidRequest
from wavserve.core.options import merge_options
from wavserve.core.spec import PlannerConfig

SPEC = example_spec()


@pytest.mark.parametrize(
    ("default", "options", "most"),
    [
        ("paper", {"mode": "off", "num_iterations": 1}, 0),
        ("off", {"num_iterations": 2}, 0),
        ("paper", {"mode": "best_of_n", "num_iterations": 2}, 1),
        ("best_of_n", {"num_iterations": 3}, 1),
    ],
)
def test_more_iterations_than_a_mode_has_are_refused(default: str, options: dict[str, object], most: int) -> None:
    defaults = PlannerConfig(mode=default)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match=rf"planner\.num_iterations: expected at most {most} in mode \w+, got"):
        merge_options(defaults, SPEC.bounds, options)


@pytest.mark.parametrize(
    ("options", "num_iterations"),
    [
        ({"mode": "off"}, 0),
        ({"mode": "off", "num_iterations": 0}, 0),
        ({"mode": "best_of_n"}, 1),
        ({"mode": "best_of_n", "num_iterations": 1}, 1),
        ({"mode": "best_of_n", "num_iterations": 0}, 0),
        ({"mode": "mean", "num_iterations": 2}, 2),
    ],
)
def test_what_is_not_asked_for_follows_the_mode(options: dict[str, object], num_iterations: int) -> None:
    """The policy's default number is of its own mode."""
    assert merge_options(SPEC.planner, SPEC.bounds, options).num_iterations == num_iterations
