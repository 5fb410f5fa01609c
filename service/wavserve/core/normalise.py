"""Converts between a robot's units and the model's units (paper, normalisation of states and actions).

A state becomes the history token; the model's output becomes commands. Knows numpy and the spec; knows neither sessions
nor models.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from wavserve.core.errors import BackendError, InvalidRequest
from wavserve.core.spec import NormSpec, PolicySpec
from wavserve.core.types import Array

_EPSILON = 1e-6  # part of the published statistics' definition, for minmax and for meanstd

_MAX_DEVIATIONS = 1e12
"""The largest accepted distance of a state from the centre of its statistics, as a multiple of their spread.

A state farther away is not a measurement, and from about 1e19 on its square overflows float32. Where the spread is 0,
_EPSILON replaces it, and the limit is about a million of the state's units."""

_Wide = NDArray[np.float64]


class Normaliser:
    """Applies a policy's statistics in both directions. It computes in float64: a sum over a chunk must not drift."""

    def __init__(self, spec: PolicySpec) -> None:
        self._action = spec.action
        self._chunk = spec.chunk
        self._state_dim = spec.state.dim
        self._state_offset, self._state_scale = _affine(spec.state.norm)
        self._offset, self._scale = _affine(spec.action.vector.norm)
        absolute = set(spec.action.absolute_dims)
        self._moving = [d for d in range(spec.action.vector.dim) if d not in absolute]

    def history(self, state: Array) -> Array:
        """State `[S]` in declared units -> history token `[Caction]`: A zeros, then the normalised state.

        Raises InvalidRequest for field `state` when the length differs.
        """
        token = np.zeros(self._action.vector.dim + self._state_dim, dtype=np.float32)
        token[self._action.vector.dim :] = self._normalise_state(self._checked(state))
        return token

    def actions(self, output: Array, state: Array) -> Array:
        """Model output `[T, Caction]` and the measured state `[S]` -> commands `[T, A]` in declared units.

        Raises BackendError when the output has another shape or a value that is not finite.
        """
        expected = (self._chunk, self._action.vector.dim + self._state_dim)
        if output.shape != expected:
            raise BackendError(f"the action expert's output has shape {list(output.shape)}, expected {list(expected)}")
        num_bad = np.count_nonzero(~np.isfinite(output))
        if num_bad:
            raise BackendError(f"the action expert's output has {num_bad} values that are not finite")
        values = output[:, : self._action.vector.dim].astype(np.float64)
        return self._commands(values, self._checked(state)).astype(np.float32)

    def outputs(self, commands: Array, state: Array) -> Array:
        """The inverse of `actions`: commands `[n, A]` in declared units -> model output `[n, A]`, seen from `state`.

        Raises InvalidRequest for field `rtc.prev_chunk_left_over` when a command is far outside the statistics.
        """
        values = self._outputs(commands.astype(np.float64), self._checked(state))
        for step, dim in np.argwhere(np.abs(values) > _MAX_DEVIATIONS)[:1]:
            field, expected = f"rtc.prev_chunk_left_over[{step}][{dim}]", "a command within reach of the statistics"
            raise InvalidRequest(field, expected, commands[step, dim])
        return values.astype(np.float32)

    def _outputs(self, commands: _Wide, state: _Wide) -> _Wide:
        moving = self._moving
        match self._action.kind:
            case "absolute":
                return self._normalise(commands)
            case "delta":
                before = np.concatenate([state[None, moving], commands[:-1, moving]])
                commands[:, moving] -= before
                return self._normalise(commands)
            case "relative":
                values = self._normalise(commands)
                values[:, moving] -= self._normalise_state(state)[moving]
                return values

    def _commands(self, values: _Wide, state: _Wide) -> _Wide:
        moving = self._moving
        match self._action.kind:
            case "absolute":
                return self._denormalise(values)
            case "delta":
                commands = self._denormalise(values)
                commands[:, moving] = np.cumsum(commands[:, moving], axis=0) + state[moving]
                return commands
            case "relative":
                values[:, moving] += self._normalise_state(state)[moving]
                return self._denormalise(values)

    def _denormalise(self, values: _Wide) -> _Wide:
        return values * self._scale + self._offset

    def _normalise(self, commands: _Wide) -> _Wide:
        return (commands - self._offset) / self._scale

    def _normalise_state(self, state: _Wide) -> _Wide:
        return (state - self._state_offset) / self._state_scale

    def _checked(self, state: Array) -> _Wide:
        if state.shape != (self._state_dim,):
            raise InvalidRequest("state", f"{self._state_dim} numbers", f"shape {list(state.shape)}")
        return state.astype(np.float64)


def rewards_and_returns(output: Array, norm: NormSpec) -> Array:
    """The value expert's last two channels `[..., 2]` -> reward and return in the units of the data.

    `norm`: `PolicySpec.value_norm`. Training standardises both, then squeezes them by symlog.
    """
    mean, std = _affine(norm)
    wide = output.astype(np.float64)
    return np.asarray(np.sign(wide) * np.expm1(np.abs(wide)) * std + mean, np.float32)


def accepted_range(norm: NormSpec) -> tuple[_Wide, _Wide]:
    """Lowest and highest accepted value `[dim]`, in declared units."""
    offset, scale = _affine(norm)
    return offset - _MAX_DEVIATIONS * scale, offset + _MAX_DEVIATIONS * scale


def usual_range(norm: NormSpec) -> tuple[_Wide, _Wide]:
    """Lowest and highest value `[dim]` that resembles the training's, in declared units.

    minmax: one span of q01 to q99 beyond either end. meanstd: six deviations from the mean.
    """
    low, high = np.array(norm.low, dtype=np.float64), np.array(norm.high, dtype=np.float64)
    if norm.kind == "meanstd":
        return low - 6 * high - _EPSILON, low + 6 * high + _EPSILON
    span = high - low + _EPSILON
    return low - span, high + span


def action_range(norm: NormSpec) -> _Wide:
    """The span `[dim]` that a dimension's statistics cover, in declared units: q01 to q99, or four deviations."""
    low, high = np.array(norm.low, dtype=np.float64), np.array(norm.high, dtype=np.float64)
    return 4 * high if norm.kind == "meanstd" else high - low


def statistics_digest(norm: NormSpec) -> str:
    """sha256 (hex) over the kind and the statistics as little-endian float64, `low` then `high`."""
    numbers = np.array([norm.low, norm.high], dtype="<f8") + 0.0  # -0.0 becomes 0.0
    return hashlib.sha256(norm.kind.encode() + numbers.tobytes()).hexdigest()


def _affine(norm: NormSpec) -> tuple[_Wide, _Wide]:
    """Offset and scale `[dim]` such that `value = normalised * scale + offset`.

    meanstd: `mean + y (std + e)`. minmax: `low + (y + 1) / 2 (high - low + e)`, so the offset is `low + scale`.
    """
    low, high = np.array(norm.low, dtype=np.float64), np.array(norm.high, dtype=np.float64)
    if norm.kind == "meanstd":
        return low, high + _EPSILON
    scale = (high - low + _EPSILON) / 2
    return low + scale, scale
