"""The gate: no action leaves that breaks a kinematic limit of the policy or is not finite.

A chunk that breaks a limit is cut before its first bad step, or refused when too few steps would remain. Position,
velocity and jerk are those of the commands. Knows numpy and the spec, and neither models nor the wire.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wavserve.core.errors import BackendError, BrokenLimit, InvalidRequest, UnsafeChunk
from wavserve.core.spec import LimitsSpec, PolicySpec
from wavserve.core.types import Array, PlanRequest
from wavserve.policy.sessions import LastPlan

_LIMITS = (("position", (1,)), ("velocity", (-1, 1)), ("jerk", (-1, 3, -3, 1)))
"""Each limit, and the weights of the commands whose difference it bounds: the oldest first, the step itself last."""
_NUM_BEFORE = 3
"""commands before a step that its jerk depends on"""
_ROUNDING = 2.0**-22
"""Two units in the last place of a float32. What rounding of the commands may add breaks no limit."""

_Wide = NDArray[np.float64]


class Gate:
    """Checks the chunks of one policy.

    Step 0 is measured from the last action of the session's last chunk that the robot executed, or else from the state,
    in dimensions in which state and action are the same quantity. When the robot paused since the last plan (it did not
    execute as many steps as passed), it rests at the state or goes on from the action, and the nearer one counts.
    Jerk is that of commands without a pause, because a measured state lags behind its command.
    """

    def __init__(
        self, spec: PolicySpec, on_broken: Callable[[Literal["cut", "refused"], BrokenLimit], None] = lambda *_: None
    ) -> None:
        """`on_broken` is called for every chunk that is cut or refused."""
        self._on_broken = on_broken
        self._names = spec.action.vector.names
        self._limits = spec.action.limits
        self._min_horizon = max(self._limits.min_horizon, 1)
        self._hz = float(spec.control_hz)
        self._low, self._high = _bounds_per_step(self._limits, len(self._names), self._hz)
        self._measured_dims = _measured_dims(spec)

    def passed(self, actions: Array, last: LastPlan | None, request: PlanRequest) -> tuple[Array, BrokenLimit | None]:
        """The actions `[T', A]` that may leave, of commands `[T, A]`, and the limit at which they were cut.

        `last`: the session's last plan. Raises UnsafeChunk when fewer than `min_horizon` steps would remain, and
        BackendError for a command that is not finite.
        """
        if not np.isfinite(actions).all():
            step, dim = np.argwhere(~np.isfinite(actions))[0]
            raise BackendError(f"step {step} of the plan: {self._names[dim]} is not finite")
        broken = self._first_broken(actions, *self._before(last, request, actions[0]))
        if broken is None:
            return actions, None
        if broken.step < self._min_horizon:
            self._on_broken("refused", broken)
            safe = f"{broken.step} safe steps before it, expected at least {self._min_horizon}"
            raise UnsafeChunk(f"{broken}; {safe}", broken)
        self._on_broken("cut", broken)
        return actions[: broken.step], broken

    def _before(self, last: LastPlan | None, request: PlanRequest, first: Array) -> tuple[_Wide, _Wide]:
        """What precedes the action `first` `[A]`: commands `[3, A]` for its jerk, and one `[A]` for its velocity.

        NaN for what is not known.
        """
        unknown = np.full((_NUM_BEFORE, len(self._names)), np.nan)
        measured, num_executed = self._measured(request.state), request.executed_steps
        if last is None or last.actions is None or not 1 <= num_executed <= len(last.actions):
            return unknown, measured
        executed = last.actions[max(num_executed - _NUM_BEFORE, 0) : num_executed].astype(np.float64)
        if request.control_step - last.control_step == num_executed:
            return np.concatenate([unknown[len(executed) :], executed]), executed[-1]
        nearer = np.isnan(measured) | (abs(first - executed[-1]) <= abs(first - measured))
        return unknown, np.where(nearer, executed[-1], measured)

    def _first_broken(self, actions: Array, before: _Wide, previous: _Wide) -> BrokenLimit | None:
        """The first broken limit of the first bad step; None when there is none. `_before` gives the last two."""
        commands = np.concatenate([before, actions.astype(np.float64)])
        continued = np.concatenate([before[:-1], previous[None], commands[_NUM_BEFORE:]])
        paths = {"position": commands, "velocity": continued, "jerk": commands}
        differences = [_differences(paths[limit], weights, len(actions)) for limit, weights in _LIMITS]
        values, rounding = (np.stack(each, axis=1) for each in zip(*differences, strict=True))  # [T, limits, A]
        # NaN, for what is not known, is not beyond a bound
        bad = np.argwhere((values < self._low - rounding) | (values > self._high + rounding))
        return self._describe(values, *map(int, bad[0])) if len(bad) else None

    def _describe(self, values: _Wide, step: int, kind: int, dim: int) -> BrokenLimit:
        limit, weights = _LIMITS[kind]
        value = float(values[step, kind, dim])
        bound = getattr(self._limits, limit)[dim]
        if limit == "position":
            low, high = bound
            bound = low if value < low else high
        for _ in weights[1:]:
            value *= self._hz
        return BrokenLimit(step, dim, self._names[dim], limit, float(bound), value)

    def _measured(self, state: Array) -> _Wide:
        """The state as a command `[A]`; NaN in dimensions in which it is another quantity."""
        if not np.isfinite(state).all():  # would be taken for what is not known
            raise InvalidRequest("state", "finite numbers", state.tolist())
        return np.append(state.astype(np.float64), np.nan)[self._measured_dims]


def _differences(commands: _Wide, weights: tuple[int, ...], num_steps: int) -> tuple[_Wide, _Wide]:
    """The weighted sum of each of the last `num_steps` commands and those before it, and what rounding may add to it.

    Both are `[num_steps, A]`.
    """
    total, size = np.zeros((2, num_steps, commands.shape[1]))
    end = len(commands)
    for age, weight in enumerate(reversed(weights)):
        window = commands[end - age - num_steps : end - age]
        total += weight * window
        size += abs(weight) * np.abs(window)
    return total, size * _ROUNDING


def _bounds_per_step(limits: LimitsSpec, dim: int, hz: float) -> tuple[_Wide, _Wide]:
    """Lowest and highest difference `[limits, A]`, in units per control step; infinite where there is no limit."""
    position = [(-np.inf, np.inf) if pair is None else pair for pair in limits.position or (None,) * dim]
    low, high = np.array(position, np.float64).T
    velocity, jerk = _largest(limits.velocity, dim) / hz, _largest(limits.jerk, dim) / hz / hz / hz
    return np.stack([low, -velocity, -jerk]), np.stack([high, velocity, jerk])


def _largest(declared: Iterable[float | None], dim: int) -> _Wide:
    return np.array([np.inf if bound is None else bound for bound in declared or (None,) * dim], np.float64)


def _measured_dims(spec: PolicySpec) -> NDArray[np.intp]:
    """Of each action dimension, the state dimension that measures the same quantity; -1 where there is none.

    Where the command is an offset to the state (`delta`, `relative`), that is the same index. Elsewhere it is the one
    with the same name and unit.
    """
    action, state = spec.action, spec.state
    named = {pair: index for index, pair in enumerate(zip(state.names, state.units, strict=True))}
    offset = set() if action.kind == "absolute" else set(range(action.vector.dim)) - set(action.absolute_dims)
    pairs = enumerate(zip(action.vector.names, action.vector.units, strict=True))
    return np.array([d if d in offset else named.get(pair, -1) for d, pair in pairs], np.intp)
