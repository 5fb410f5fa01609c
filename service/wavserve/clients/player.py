"""Plays chunks: gives the command for each control step. Chunks may come late, twice, in any order or not at all.

It counts steps and consumed actions, never time. It knows no link, no robot and no clock. It is not thread-safe: the
thread that sends the commands owns it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from wavserve.clients.chunk_order import ChunkOrder, Refusal
from wavserve.clients.player_config import PlayerConfig, check_config
from wavserve.clients.trajectory import Commands, Rest, blend, first_rows, limited
from wavserve.core.errors import InvalidRequest, shown
from wavserve.core.messages import ActionChunk
from wavserve.core.types import Array

Source = Literal["chunk", "blend", "hold"]


@dataclass(frozen=True, slots=True)
class Offer:
    """What became of a chunk that was offered."""

    refusal: Refusal | None
    """None: it was accepted"""
    index: int = 0
    """its first action that will be executed, when it was accepted: the actions before it are out of date"""

    @property
    def accepted(self) -> bool:
        return self.refusal is None


@dataclass(frozen=True, slots=True)
class Command:
    """What to send to the robot at one control step."""

    action: Commands | None
    """`[A]`, finite; None: there is nothing to send yet"""
    source: Source
    index: int = 0
    """of the action in its chunk, when the source is no hold"""
    chunk_id: str = ""
    clamped: tuple[int, ...] = ()
    """dimensions that `limits` or `max_step` changed"""
    starved: bool = False
    """a hold after actions of this epoch were executed"""
    seam_jump: float | None = None
    """set at the first command of a chunk: the largest difference between the chunk and what the robot would have done
    without it, at the chunk's first action that differs, without the dimensions in `blend_excluded`; None also where
    the robot had no command before"""


@dataclass(frozen=True, slots=True)
class _Path:
    """The actions to execute, with the blending done. Row `i` belongs to control step `first_step + i`."""

    rows: Commands
    first_step: int
    chunk_id: str
    first_index: int
    num_blended: int
    seam_jump: float | None


class ActionPlayer:
    """Gives one command for each control step.

    Which action of a chunk is next follows from the actions that were consumed since its observation. So the first
    chunk of an epoch begins at its index 0, however long it took: the robot stood still. After a pause it is the same.
    Later chunks begin after the actions that were executed meanwhile, which are out of date.

    Without an action the player holds: the commands come to rest. Then the last one is repeated, or 0 is sent where a
    command is an offset (`PlayerConfig.hold`).
    """

    def __init__(self, config: PlayerConfig, action_dim: int, dt_s: float) -> None:
        """`action_dim`: A. `dt_s`: seconds between two control steps. Raises InvalidRequest naming the field."""
        check_config(config, action_dim)
        self._config, self._action_dim, self._dt_s = config, action_dim, dt_s
        bounds = [each or (-math.inf, math.inf) for each in config.limits or (None,) * action_dim]
        self._low, self._high = np.array(bounds, np.float64).T
        self._max_step = np.array(config.max_step or (math.inf,) * action_dim)
        self._range = np.array(config.action_range or (1.0,) * action_dim)
        self._replaced = list(config.blend_excluded)
        self._faded = [d for d in range(action_dim) if d not in config.blend_excluded]
        offsets = np.array(config.hold or ("last",) * action_dim) == "zero"
        at_once = np.isin(np.arange(action_dim), config.blend_excluded)
        self._rest = Rest(config.stop_steps, at_once, offsets)
        self._last: Commands | None = np.zeros(action_dim) if offsets.all() else None
        self._velocity: Commands = np.zeros(action_dim)
        self._ramp: deque[Commands] | None = None  # in a hold: the commands until the robot rests
        self._next_step: int | None = None
        self._num_executed = 0
        self._order = ChunkOrder("", 0)
        self.begin_epoch("", 0)

    def begin_epoch(self, session_id: str, epoch: int, resumed: bool = False) -> None:
        """Takes chunks of this session and epoch only, and drops every other one. Steps may be numbered anew.

        Call it for each `Welcome` and each `ResetAck`. Without a stream the epoch is 0. `resumed`: of the `Welcome`.
        The session then goes on, and so does the robot with the actions that it has; steps keep their numbers.
        """
        if resumed:
            self._order.go_on(session_id, epoch)
            return
        self._order = ChunkOrder(session_id, epoch)
        self._path: _Path | None = None
        self._has_played = False
        self._due: int | None = None
        self._next_step = None

    def hold_from(self, measured: Sequence[float] | Commands | Array) -> None:
        """Takes a measured pose `[A]` as the last command: before the first motion, and after a person moved the robot.

        Where a command is an offset, the last command is 0 whatever was measured.

        It drops the actions that it has, and refuses chunks of earlier observations. Never call it to stop a motion.
        Raises InvalidRequest.
        """
        pose = np.array(measured, np.float64)
        if pose.shape != (self._action_dim,) or not np.isfinite(pose).all():
            raise InvalidRequest("measured", f"{self._action_dim} finite numbers", shown(pose.tolist()))
        self._last, self._velocity = self._rest.at(pose), np.zeros(self._action_dim)
        self._path, self._ramp = None, None
        self._order.refuse_before(self._next_step or 0)

    @property
    def last_command(self) -> Commands | None:
        """`[A]`: the last command, or the pose of `hold_from`, or 0 where all commands are offsets; None: not known."""
        return None if self._last is None else self._last.copy()

    @property
    def is_at_rest(self) -> bool:
        """Whether the latest command equals the one before it. It means rest only where all commands are positions."""
        return not self._velocity.any()

    @property
    def executed_steps(self) -> int:
        """Actions of chunks that were executed so far, in all epochs."""
        return self._num_executed

    def expect(self, step: int) -> None:
        """Says that the next chunk must be there at `step`. If it is not, `max_open_loop_steps` actions follow at most.

        Call it for each observation that is sent, with the latency in steps added, and with the present step when the
        link is lost. The earliest step counts, until a chunk is accepted.
        """
        self._due = step if self._due is None else min(self._due, step)

    def remaining(self, step: int) -> int:
        """Actions that may be executed from `step` on."""
        return len(self._rows(step))

    def wants_next(self, step: int, latency_steps: int | None) -> bool:
        """Whether it is time to send an observation, for its chunk to arrive while there are actions to blend with.

        `latency_steps`: from an observation to its chunk; None: not known yet.
        """
        return latency_steps is None or self.remaining(step) <= latency_steps + self._config.blend_steps

    def left_over(self, step: int) -> Array:
        """`[n, A]`: the actions from `step` on, before limits; n is 0 in a hold."""
        return self._rows(step).astype(np.float32)

    def offer(self, chunk: ActionChunk, next_step: int) -> Offer:
        """Takes a chunk, or says why not. `next_step`: the step that the next `command` is for."""
        self._check_step(next_step)
        refusal = self._order.take(chunk, next_step) or self._judge_actions(chunk, next_step)
        if refusal is not None:
            return Offer(refusal)
        index = self._order.num_consumed
        self._path, self._due = self._continue(chunk, next_step, index), None
        return Offer(None, index)

    def command(self, step: int) -> Command:
        """The command for a step. Each call is for the step after the last call's: steps count commands, not time.

        Raises InvalidRequest for another step.
        """
        self._check_step(step)
        self._next_step = step + 1
        path, rows = self._path, self._rows(step)
        if path is None or not len(rows):
            return self._hold()
        row = step - path.first_step
        self._ramp = None
        action, clamped = self._send(rows[0])
        self._order.consumed(step)
        self._has_played = True
        self._num_executed += 1
        return Command(
            action,
            "blend" if row < path.num_blended else "chunk",
            path.first_index + row,
            path.chunk_id,
            clamped,
            seam_jump=path.seam_jump if row == 0 else None,
        )

    def _judge_actions(self, chunk: ActionChunk, next_step: int) -> Refusal | None:
        """Whether the chunk has an action for the next step."""
        if chunk.actions.ndim != 2 or chunk.actions.shape[1] != self._action_dim:
            return Refusal.DIMENSION
        if not np.isfinite(chunk.actions).all():
            return Refusal.NOT_FINITE
        if not math.isclose(chunk.dt_ns / 1e9, self._dt_s, rel_tol=1e-3):
            return Refusal.RATE
        skipped = self._order.num_consumed
        if skipped >= len(chunk.actions) or (skipped and next_step >= chunk.valid_until_step):
            return Refusal.EXPIRED
        return Refusal.NO_POSE if self._last is None and self._config.max_step is not None else None

    def _continue(self, chunk: ActionChunk, step: int, index: int) -> _Path:
        """The chunk's actions from `index` on, blended with what the robot would do without the chunk."""
        new = chunk.actions[index:].astype(np.float64)
        if self._last is None:
            return _Path(new, step, chunk.chunk_id, index, 0, None)
        same = self._num_same(step, new)
        goes_on = 0 < same == self.remaining(step)  # the chunk begins where the present actions end: nothing to fade
        fade = np.zeros(0) if goes_on else self._weights(step + same, len(new) - same)
        weights = np.concatenate([np.ones(same), fade])
        seam = min(same, len(new) - 1)
        old = first_rows(self._without_chunk(step), max(len(weights), seam + 1))
        differs = np.abs(new[seam] - old[seam]) / self._range
        jump = float(np.max(differs[self._faded], initial=0.0))
        mixed = blend(old[: len(weights)], new, weights, self._replaced)
        return _Path(mixed, step, chunk.chunk_id, index, len(weights), jump)

    def _num_same(self, step: int, new: Commands) -> int:
        """The first new actions that continue the present ones bit for bit: real-time chunking freezes them."""
        old = self.left_over(step)[: len(new)]
        differs = (new[: len(old)].astype(np.float32) != old).any(axis=1)
        return int(differs.argmax()) if differs.any() else len(old)

    def _weights(self, step: int, num_new: int) -> Commands:
        """The weights in the blend of the new chunk's actions from `step` on."""
        match self._config.blend:
            case "replace":
                return np.zeros(0)
            case "average":
                return np.full(min(self.remaining(step), num_new), 0.5)
            case "linear":
                num_steps = min(self._config.blend_steps, num_new)
                return np.arange(1, num_steps + 1) / (num_steps + 1)

    def _without_chunk(self, step: int) -> Commands:
        """`[n, A]`, n at least 1: the present actions, then how the robot comes to rest."""
        assert self._last is not None
        rows = self._rows(step)
        if not len(rows):
            return np.array(self._ramp) if self._ramp else self._rest.ramp(self._last, self._velocity)
        before = rows[-2] if len(rows) > 1 else self._last
        return np.concatenate([rows, self._rest.ramp(rows[-1], rows[-1] - before)])

    def _rows(self, step: int) -> Commands:
        """`[n, A]`: the actions that may be executed from `step` on."""
        path = self._path
        if path is None:
            return np.zeros((0, self._action_dim))
        end = len(path.rows)
        if self._due is not None:
            end = min(end, self._due + self._config.max_open_loop_steps - path.first_step)
        return path.rows[max(step - path.first_step, 0) : max(end, 0)]

    def _hold(self) -> Command:
        self._path = None
        if self._last is None:
            return Command(None, "hold")
        if self._ramp is None:
            self._ramp = deque(self._rest.ramp(self._last, self._velocity))
        action, clamped = self._send(self._ramp.popleft() if self._ramp else self._rest.at(self._last))
        return Command(action, "hold", clamped=clamped, starved=self._has_played)

    def _send(self, target: Commands) -> tuple[Commands, tuple[int, ...]]:
        """The command within the limits, and the dimensions that they changed."""
        action = limited(target, self._low, self._high, self._last, self._max_step)
        self._velocity = np.zeros(self._action_dim) if self._last is None else action - self._last
        self._last = action
        return action.copy(), tuple(np.flatnonzero(action != target).tolist())

    def _check_step(self, step: int) -> None:
        if self._next_step is not None and step != self._next_step:
            raise InvalidRequest("step", f"{self._next_step}, the step after the last command's", step)
