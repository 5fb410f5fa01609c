"""Robot units to model units and back, against values computed by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.planning.rig import example_spec
from wavserve.core.errors import BackendError, InvalidRequest
from wavserve.core.normalise import Normaliser, accepted_range, action_range, statistics_digest
from wavserve.core.spec import ActionSpec, NormSpec, PolicySpec, VectorSpec

MINMAX = NormSpec("minmax", (-2.0, 10.0), (2.0, 30.0))
MEANSTD = NormSpec("meanstd", (0.5, -4.0), (0.25, 2.0))
STATE = np.array([1.0, -2.0], np.float32)


def spec(norm: NormSpec, kind: str = "absolute", absolute_dims: tuple[int, ...] = ()) -> PolicySpec:
    """Two joints and a chunk of three actions. The state's statistics are MEANSTD."""
    action = ActionSpec(vector(norm), kind, absolute_dims)  # type: ignore[arg-type]
    return replace(example_spec(), state=vector(MEANSTD), action=action, chunk=3)


def vector(norm: NormSpec) -> VectorSpec:
    return VectorSpec(("a", "b"), ("m", "m"), norm)


def output(*steps: tuple[float, float]) -> np.ndarray:
    """A model's output: the actions, then the channels of the state, whose values have no meaning."""
    return np.array([(*step, 9.0, -9.0) for step in steps], np.float32)


def test_the_history_token_is_zeros_and_the_normalised_state() -> None:
    np.testing.assert_allclose(Normaliser(spec(MINMAX)).history(STATE), [0, 0, 2, 1], rtol=1e-5)


@pytest.mark.parametrize(
    ("norm", "commands"),
    [(MINMAX, [[-2, 30], [0, 20], [1, 25]]), (MEANSTD, [[0.25, -2], [0.5, -4], [0.625, -3]])],
    ids=lambda value: value.kind if isinstance(value, NormSpec) else "",
)
def test_absolute_commands_are_in_the_statistics_units(norm: NormSpec, commands: list[list[float]]) -> None:
    actual = Normaliser(spec(norm)).actions(output((-1, 1), (0, 0), (0.5, 0.5)), STATE)
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, commands, atol=2e-6)


@pytest.mark.parametrize(
    ("absolute_dims", "commands"),
    [((), [[0, 18], [1, 38], [4, 58]]), ((1,), [[0, 20], [1, 20], [4, 20]]), ((0, 1), [[-1, 20], [1, 20], [3, 20]])],
)
def test_deltas_are_summed_onto_the_state_except_in_absolute_dims(
    absolute_dims: tuple[int, ...], commands: list[list[float]]
) -> None:
    normaliser = Normaliser(spec(NormSpec("minmax", (-4.0, 10.0), (4.0, 30.0)), "delta", absolute_dims))
    steps = output((-0.25, 0), (0.25, 0), (0.75, 0))
    np.testing.assert_allclose(normaliser.actions(steps, STATE), commands, atol=1e-5)


def test_relative_commands_are_offsets_to_the_state_except_in_absolute_dims() -> None:
    normaliser = Normaliser(spec(MINMAX, "relative", (1,)))
    steps = output((-1, -1), (-2, 0), (-1.5, 1))
    np.testing.assert_allclose(normaliser.actions(steps, STATE), [[2, 10], [0, 20], [1, 30]], atol=1e-4)


@pytest.mark.parametrize("kind", ["absolute", "delta", "relative"])
@pytest.mark.parametrize("absolute_dims", [(), (1,)])
@pytest.mark.parametrize("norm", [MINMAX, MEANSTD], ids=lambda norm: norm.kind)
def test_outputs_are_the_inverse_of_actions(norm: NormSpec, kind: str, absolute_dims: tuple[int, ...]) -> None:
    normaliser = Normaliser(spec(norm, kind, absolute_dims))
    steps = output((-0.25, 0.5), (0.75, -1.5), (0.1, 0.2))
    commands = normaliser.actions(steps, STATE)
    kept = commands.copy()
    outputs = normaliser.outputs(commands, STATE)
    assert outputs.dtype == np.float32
    np.testing.assert_allclose(outputs, steps[:, :2], atol=1e-5)
    np.testing.assert_array_equal(commands, kept)


def test_a_repeated_command_of_kind_delta_is_no_increment() -> None:
    norm = NormSpec("meanstd", (0.0, 0.0), (0.5, 2.0))
    outputs = Normaliser(spec(norm, "delta", (1,))).outputs(np.array([[1.5, 4.0]] * 3, np.float32), STATE)
    np.testing.assert_allclose(outputs, [[1.0, 2.0], [0.0, 2.0], [0.0, 2.0]], atol=1e-5)


def test_a_left_over_far_outside_the_statistics_is_refused() -> None:
    normaliser = Normaliser(spec(NormSpec("meanstd", (0.0, 0.0), (1e-9, 1.0)), "delta"))
    with pytest.raises(InvalidRequest) as refused:
        normaliser.outputs(np.array([[1.0, 0.0], [1e8, 0.0]], np.float32), STATE)
    assert refused.value.field == "rtc.prev_chunk_left_over[1][0]"


def test_the_inputs_are_not_modified() -> None:
    steps, state = output((0, 0), (0.5, 0), (1, 1)), STATE.copy()
    for kind in ("absolute", "delta", "relative"):
        Normaliser(spec(MINMAX, kind)).actions(steps, state)
    np.testing.assert_array_equal(steps, output((0, 0), (0.5, 0), (1, 1)))
    np.testing.assert_array_equal(state, STATE)


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_an_output_that_is_not_finite_is_an_error(broken: float) -> None:
    with pytest.raises(BackendError, match="1 values that are not finite"):
        Normaliser(spec(MINMAX)).actions(output((0, 0), (broken, 0), (0, 0)), STATE)


def test_an_output_of_another_shape_is_an_error() -> None:
    with pytest.raises(BackendError, match=r"shape \[2, 4\], expected \[3, 4\]"):
        Normaliser(spec(MINMAX)).actions(output((0, 0), (0, 0)), STATE)


def test_a_state_of_another_length_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"state: expected 2 numbers, got shape \[3\]"):
        Normaliser(spec(MINMAX)).history(np.zeros(3, np.float32))


def test_joints_that_never_moved_in_training_may_move() -> None:
    """Their statistics have no spread. The accepted range must still include every value that a robot can measure."""
    for norm in (NormSpec("meanstd", (3.0,), (0.0,)), NormSpec("minmax", (3.0,), (3.0,))):
        lowest, highest = accepted_range(norm)
        assert lowest[0] < -1e5
        assert highest[0] > 1e5


def test_the_range_of_an_action_is_the_span_of_its_statistics() -> None:
    assert action_range(MINMAX).tolist() == [4.0, 20.0]
    assert action_range(MEANSTD).tolist() == [1.0, 8.0]


def test_statistics_have_equal_digests_only_when_they_are_equal() -> None:
    others = [
        replace(MINMAX, kind="meanstd"),
        replace(MINMAX, low=(-2.0, 10.000001)),
        NormSpec("minmax", MINMAX.high, MINMAX.low),
    ]
    assert len({statistics_digest(each) for each in (MINMAX, *others)}) == 4
    assert statistics_digest(NormSpec("minmax", (0.0,), (1.0,))) == statistics_digest(NormSpec("minmax", (-0.0,), (1,)))
