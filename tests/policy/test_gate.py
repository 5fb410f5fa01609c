"""The gate on chunks made up for it: what leaves breaks no limit, and nothing is cut that breaks none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from math import comb
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import example_vector
from tests.planning.rig import example_spec
from wavserve.core.errors import BackendError, BrokenLimit, InvalidRequest, UnsafeChunk
from wavserve.core.spec import ActionSpec, LimitsSpec, PolicySpec
from wavserve.core.types import Array, Gaussian, PlanRequest
from wavserve.policy.gate import Gate
from wavserve.policy.sessions import LastPlan

HZ = 30.0
STEP = 100
"""control step of the chunks"""
WEIGHTS = {"position": (1,), "velocity": (-1, 1), "jerk": (-1, 3, -3, 1)}


def policy(limits: LimitsSpec, dim: int = 1, **action: Any) -> PolicySpec:
    """State and action of `dim` dimensions in metres, with the same names, at 30 Hz."""
    declared = ActionSpec(example_vector(dim), limits=limits, **action)
    return replace(example_spec(), state=example_vector(dim), action=declared, control_hz=HZ)


def one_limit(limit: str, bound: float, **changes: Any) -> PolicySpec:
    """A policy of one dimension with one limit."""
    declared: Any = {limit: ((-bound, bound) if limit == "position" else bound,)}
    return policy(LimitsSpec(**declared, **changes))


def column(*values: float) -> Array:
    return np.array(values, np.float64).astype(np.float32)[:, None]


def last_plan(actions: Array, next_step: int = STEP) -> LastPlan:
    """A last plan whose chunk ends just before `next_step`."""
    nothing = Gaussian(np.zeros(1, np.float32), np.ones(1, np.float32))
    return LastPlan("task", next_step - len(actions), nothing, nothing, actions=actions)


def passed(
    spec: PolicySpec,
    actions: Array,
    last: LastPlan | None = None,
    state: Sequence[float] | None = None,
    executed: int | None = None,
) -> tuple[Array, BrokenLimit | None]:
    """`executed`: steps since the last plan; None: as many as passed."""
    measured = np.zeros(spec.state.dim, np.float32) if state is None else np.array(state, np.float32)
    num_executed = (STEP - last.control_step if last else 0) if executed is None else executed
    request = PlanRequest(
        images={}, state=measured, instruction="go", control_step=STEP, executed_steps=max(num_executed, 0)
    )
    return Gate(spec).passed(actions, last, request)


def gated(*args: Any, **named: Any) -> tuple[Array | None, BrokenLimit | None]:
    """The actions that leave, None for a chunk that is refused, and the limit that it breaks."""
    try:
        return passed(*args, **named)
    except UnsafeChunk as error:
        return None, error.broken


def broken(*args: Any, **named: Any) -> BrokenLimit | None:
    return gated(*args, **named)[1]


def at_limit(limit: str, bound: float, num_steps: int = 12) -> Array:
    """Commands whose position, velocity or jerk is `bound` at every step, rounded to float32."""
    order = len(WEIGHTS[limit]) - 1
    steps = (comb(i, order) if order else 1 for i in range(num_steps))
    return column(*(bound / HZ**order * step for step in steps))


@pytest.mark.parametrize("limit", WEIGHTS)
@pytest.mark.parametrize("bound", [0.07, 0.1, 1 / 3, 1.0, 2.618, 180.0, 1e4, 1e-6])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_chunk_exactly_at_its_bound_passes_and_one_beyond_it_does_not(limit: str, bound: float, sign: int) -> None:
    spec, actions = one_limit(limit, bound), sign * at_limit(limit, bound)
    first = float(actions[0, 0])
    answer, cut = passed(spec, actions, state=[first])
    assert answer is actions
    assert cut is None
    found = broken(spec, sign * at_limit(limit, bound * 1.001), state=[first])
    assert found is not None
    order = len(WEIGHTS[limit]) - 1
    assert (found.limit, found.step, found.dimension, found.name) == (limit, order, 0, "x0")
    assert found.bound == (sign * bound if limit == "position" else bound)
    assert found.value == pytest.approx(sign * bound * 1.001, rel=1e-3)


@pytest.mark.parametrize("limit", WEIGHTS)
def test_rounding_excuses_less_than_a_millionth(limit: str) -> None:
    order = len(WEIGHTS[limit]) - 1
    beyond = column(*[0.0] * order, 0.7 * (1 + 1e-6) / HZ**order)
    assert broken(one_limit(limit, 0.7), beyond) is not None
    assert broken(one_limit(limit, 0.7), (beyond / np.float32(1 + 1e-6)).astype(np.float32)) is None


@pytest.mark.parametrize("limit", ["position", "velocity"])
def test_a_bound_of_zero_is_a_bound(limit: str) -> None:
    spec = one_limit(limit, 0.0)
    assert broken(spec, column(0, 0, 0)) is None
    found = broken(spec, column(0, 0, 1e-30))
    assert found is not None
    assert found.step == 2


def test_without_limits_every_finite_chunk_leaves_as_it_is() -> None:
    actions = np.array([[1e30, -1e30], [-3e38, 3e38], [0, -0.0]], np.float32)
    for limits in (LimitsSpec(), LimitsSpec((None, None), (None, None), (None, None), min_horizon=3)):
        answer, cut = passed(policy(limits, 2), actions)
        assert answer is actions
        assert cut is None


def test_a_chunk_is_cut_before_its_first_bad_step() -> None:
    actions = np.array([[0, 0], [0.05, 0], [0.1, 0], [0.1, 0.5], [9, 9]], np.float32)
    answer, cut = passed(policy(LimitsSpec(velocity=(None, 3.0)), 2), actions)
    np.testing.assert_array_equal(answer, actions[:3])
    assert cut == BrokenLimit(3, 1, "x1", "velocity", 3.0, 15.0)


@pytest.mark.parametrize(("min_horizon", "is_cut"), [(0, True), (1, True), (3, True), (4, False), (99, False)])
def test_a_chunk_with_too_few_safe_steps_is_refused(min_horizon: int, is_cut: bool) -> None:
    spec, actions = one_limit("position", 1.0, min_horizon=min_horizon), column(0, 0, 0, 2, 0)
    if is_cut:
        assert len(passed(spec, actions)[0]) == 3
        return
    with pytest.raises(UnsafeChunk) as refused:
        passed(spec, actions)
    assert refused.value.broken == BrokenLimit(3, 0, "x0", "position", 1.0, 2.0)
    assert refused.value.retryable
    assert refused.value.message == (
        "step 3 of the plan: position 2 of x0 (dimension 0) is beyond 1; "
        f"3 safe steps before it, expected at least {min_horizon}"
    )


def test_no_chunk_is_cut_to_nothing() -> None:
    with pytest.raises(UnsafeChunk):
        passed(one_limit("position", 1.0, min_horizon=0), column(2, 0, 0))


def test_a_short_chunk_that_breaks_nothing_passes_whatever_the_least_horizon() -> None:
    assert len(passed(one_limit("position", 1.0, min_horizon=99), column(0, 0))[0]) == 2


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("limits", [LimitsSpec(), LimitsSpec(((-1.0, 1.0), None), (1.0, None), (1.0, None))])
def test_what_is_not_finite_never_leaves(value: float, limits: LimitsSpec) -> None:
    actions = np.zeros((6, 2), np.float32)
    actions[4, 1] = value
    with pytest.raises(BackendError, match="step 4 of the plan: x1 is not finite"):
        passed(policy(limits, 2), actions)


def test_a_state_that_is_not_finite_leaves_no_first_step_unchecked() -> None:
    with pytest.raises(InvalidRequest, match="state: expected finite numbers"):
        passed(one_limit("velocity", 1.0), column(0, 0), state=[np.nan])


def test_the_first_step_is_measured_from_the_last_committed_action_and_not_from_the_state() -> None:
    spec, actions = one_limit("velocity", 3.0), column(0.5, 0.5)
    assert broken(spec, actions, last_plan(column(0.4)), state=[9]) is None
    assert broken(spec, actions, last_plan(column(0.3)), state=[0.5]) == BrokenLimit(
        0, 0, "x0", "velocity", 3.0, pytest.approx(6.0)
    )


@pytest.mark.parametrize(
    ("starts", "num_actions", "previous"),
    [
        (STEP - 5, 9, 0.4),  # the robot executed five steps of nine
        (STEP - 5, 5, 0.4),
        (STEP - 1, 5, 0.0),
        (STEP - 5, 4, None),  # the chunk ended a step before
        (STEP, 5, None),  # a plan for the same step: nothing was executed since
        (STEP - 5, 0, None),
    ],
)
def test_the_last_chunk_is_aligned_by_control_step(starts: int, num_actions: int, previous: float | None) -> None:
    """Action `i` of the last chunk is `i / 10`; where none precedes the step, the state of 7 does."""
    committed = column(*(i / 10 for i in range(num_actions)))
    last = replace(last_plan(committed), control_step=starts)
    found = broken(one_limit("velocity", 0.0), column(8), last, state=[7])
    assert found is not None
    assert found.value == pytest.approx((8 - (7 if previous is None else previous)) * HZ)


@pytest.mark.parametrize(
    ("executed", "state", "previous"),
    [
        (3, 0.1, 0.2),  # the first chunk came late: the robot goes on from its third action
        (3, 7.0, 7.0),  # it rests at 7, or a person moved it
        (9, 0.1, 0.1),  # more than the chunk had
        (0, 0.1, 0.1),
    ],
)
@pytest.mark.parametrize("starts", [STEP - 8, STEP - 1, STEP + 3])
def test_after_a_pause_the_nearer_of_the_last_executed_action_and_the_state_counts(
    starts: int, executed: int, state: float, previous: float
) -> None:
    """Action `i` of the last chunk is `i / 10`. The steps that passed are not those that were executed."""
    last = replace(last_plan(column(0, 0.1, 0.2, 0.3, 0.4, 0.5)), control_step=starts)
    found = broken(one_limit("velocity", 0.0), column(8), last, [state], executed)
    assert found is not None
    assert found.value == pytest.approx((8 - previous) * HZ)


def test_after_a_pause_nothing_is_known_of_the_jerk_of_the_first_steps() -> None:
    last = replace(last_plan(column(0, 9, 0, 9)), control_step=STEP - 8)
    assert broken(one_limit("jerk", 1.0), column(0, 0, 0), last, [0], 4) is None
    found = broken(one_limit("jerk", 1.0), column(0, 0, 0), last_plan(column(0, 9, 0, 9)), [0])
    assert found is not None
    assert found.step == 0


def test_after_a_pause_a_dimension_that_no_state_measures_goes_on_from_the_action() -> None:
    spec = one_limit("velocity", 3.0)
    spec = replace(spec, state=replace(spec.state, names=("elsewhere",)))
    last = replace(last_plan(column(0.5, 9, 9)), control_step=STEP - 8)
    assert broken(spec, column(0.6), last, [0.6], 1) is None
    assert broken(spec, column(0.7), last, [0.7], 1) is not None


@pytest.mark.parametrize(("num_before", "step"), [(0, 3), (1, 2), (2, 1), (3, 0), (5, 0)])
def test_jerk_is_measured_from_the_commands_that_are_known(num_before: int, step: int) -> None:
    """A measured state lags behind its command, so it is none of them."""
    spec = one_limit("jerk", 1.0)
    last = last_plan(column(*[5.0] * num_before)) if num_before else None
    found = broken(spec, column(5.0, 5.0, 5.0, 5.1), last, state=[-5])
    assert found is not None
    assert found.step == 3
    found = broken(spec, column(0, 1, 5, 9, 9), last, state=[0])
    assert found is not None
    assert found.step == step


@pytest.mark.parametrize(
    ("change", "action", "is_checked"),
    [
        ({}, {}, True),
        ({"units": ("rad", "rad")}, {}, False),
        ({"names": ("elsewhere", "other")}, {}, False),
        ({"names": ("x1", "x0")}, {}, True),  # found by name: the state is [0, 7]
        ({"names": ("elsewhere", "other")}, {"kind": "delta"}, True),
        ({"names": ("elsewhere", "other")}, {"kind": "relative"}, True),
        ({"names": ("elsewhere", "other")}, {"kind": "delta", "absolute_dims": (1,)}, False),
    ],
)
def test_a_state_counts_where_it_is_the_same_quantity(
    change: dict[str, Any], action: dict[str, Any], is_checked: bool
) -> None:
    spec = policy(LimitsSpec(velocity=(None, 0.5)), 2, **action)
    spec = replace(spec, state=replace(spec.state, **change))
    state = [7.0, 0.0] if change.get("names") == ("x1", "x0") else [0.0, 7.0]
    assert broken(spec, np.array([[3, 7], [4, 7]], np.float32), state=state) is None
    found = broken(spec, np.array([[3, 8], [4, 8]], np.float32), state=state)
    assert found == (BrokenLimit(0, 1, "x1", "velocity", 0.5, 30.0) if is_checked else None)


def test_of_two_limits_broken_at_once_the_first_is_told() -> None:
    spec = policy(LimitsSpec(((-9.0, 9.0), (-1.0, 1.0)), (1.0, 1.0)), 2)
    found = broken(spec, np.array([[0, 0], [5, 5]], np.float32))
    assert found == BrokenLimit(1, 1, "x1", "position", 1.0, 5.0)


def test_what_is_cut_and_what_is_refused_is_reported() -> None:
    seen: list[tuple[str, int]] = []
    gate = Gate(one_limit("position", 1.0), lambda outcome, found: seen.append((outcome, found.step)))
    request = PlanRequest(images={}, state=np.zeros(1, np.float32), instruction="go")
    gate.passed(column(0, 0), None, request)
    gate.passed(column(0, 2), None, request)
    with pytest.raises(UnsafeChunk):
        gate.passed(column(2, 0), None, request)
    assert seen == [("cut", 1), ("refused", 0)]


bounds = st.none() | st.floats(0.0, 1e4)
limits = st.builds(
    LimitsSpec,
    position=st.just(())
    | st.lists(st.none() | st.tuples(st.floats(-9.0, 0.0), st.floats(0.0, 9.0)), min_size=2, max_size=2).map(tuple),
    velocity=st.just(()) | st.lists(bounds, min_size=2, max_size=2).map(tuple),
    jerk=st.just(()) | st.lists(bounds.map(lambda b: b and b * 100), min_size=2, max_size=2).map(tuple),
    min_horizon=st.integers(0, 6),
)
numbers = st.floats(-20, 20, width=32) | st.floats(-1, 1, width=32) | st.just(0.0)


def rows(max_size: int, min_size: int = 0) -> st.SearchStrategy[Array]:
    """Arrays `[n, 2]`: walks, and numbers without any order."""
    steps = st.lists(st.tuples(numbers, numbers), min_size=min_size, max_size=max_size)
    scales = st.sampled_from([1.0, 0.05, 0.002])
    loose = steps.map(lambda each: np.array(each, np.float32).reshape(-1, 2))
    walks = st.tuples(loose, scales).map(lambda each: (np.cumsum(each[0], axis=0) * each[1]).astype(np.float32))
    return loose | walks


def exact_excess(spec: PolicySpec, limit: str, dim: int, window: Sequence[float]) -> tuple[Fraction, Fraction]:
    """How far the last of some commands is beyond a limit, in exact arithmetic, and what their rounding may add."""
    declared = getattr(spec.action.limits, limit)
    weights = WEIGHTS[limit]
    if not declared or declared[dim] is None or len(window) < len(weights):
        return Fraction(-1), Fraction(0)
    rate = Fraction(spec.control_hz) ** (len(weights) - 1)
    commands = [Fraction(command) for command in window[len(window) - len(weights) :]]
    value = sum(weight * command for weight, command in zip(weights, commands, strict=True)) * rate
    size = sum(abs(weight * command) for weight, command in zip(weights, commands, strict=True)) * rate
    low, high = declared[dim] if limit == "position" else (-declared[dim], declared[dim])
    return max(Fraction(low) - value, value - Fraction(high)), size * Fraction(2) ** -21


def excesses(
    spec: PolicySpec, actions: Array, before: Array, state: Array, paused: bool, step: int
) -> list[tuple[Fraction, Fraction]]:
    """`exact_excess` of every limit at a step, from a plain reading of the rules."""
    found = []
    for dim in range(actions.shape[1]):
        planned = actions[: step + 1, dim].tolist()
        commands = planned if paused else [*before[:, dim].tolist(), *planned]
        starts = [*before[-1:, dim].tolist(), float(state[dim])]
        nearest = min(starts, key=lambda start: abs(Fraction(start) - Fraction(planned[0])))
        measured = [nearest, *planned] if paused or not len(before) else commands
        for limit, window in (("position", commands), ("velocity", measured), ("jerk", commands)):
            found.append(exact_excess(spec, limit, dim, window))
    return found


@given(limits=limits, actions=rows(8, min_size=1), before=rows(4), state=rows(1, min_size=1), paused=st.booleans())
def test_what_leaves_breaks_no_limit_and_the_step_after_it_does(
    limits: LimitsSpec, actions: Array, before: Array, state: Array, paused: bool
) -> None:
    spec = policy(limits, 2)
    last = last_plan(before, STEP - 9 if paused else STEP) if len(before) else None
    unchanged = actions.copy()
    answer, found = gated(spec, actions, last, state[0].tolist(), len(before))
    num_safe = len(actions) if found is None else found.step
    for step in range(num_safe):
        assert all(excess <= rounding for excess, rounding in excesses(spec, actions, before, state[0], paused, step))
    if found is not None:
        assert max(excess for excess, _ in excesses(spec, actions, before, state[0], paused, found.step)) > 0
    assert (answer is None) == (found is not None and num_safe < max(limits.min_horizon, 1))
    assert answer is None or answer.tobytes() == unchanged[:num_safe].tobytes()
