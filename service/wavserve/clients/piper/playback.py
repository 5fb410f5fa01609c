"""Gives the command of each step: plays chunks, approaches a first command that is far, holds without a chunk.

Everything is in the policy's units. It knows neither arms nor the network, and it counts steps, never time.
"""

from __future__ import annotations

import math

import numpy as np

from wavserve.clients.piper import rtc, vectors
from wavserve.clients.piper.config import PiperConfig
from wavserve.clients.piper.limits import AXIS_RANGES
from wavserve.clients.piper.motion import Approach
from wavserve.clients.piper.vectors import Axes, Units
from wavserve.clients.player import ActionPlayer, Command
from wavserve.clients.player_config import PlayerConfig
from wavserve.core.messages import ActionChunk, PolicyInfo
from wavserve.core.types import Array

NEAR_STEPS = 2.0
"""A first command at most this many full steps away is near: the player blends to it. Others are approached."""


class Playback:
    """One command for each control step."""

    def __init__(self, config: PiperConfig, policy: PolicyInfo) -> None:
        player = player_config(config, policy)
        units = Units(config)
        self.stop_steps = player.stop_steps
        """steps in which a hold comes to rest"""
        self.step = 0
        """of the next command"""
        self.playing = Command(None, "hold")
        """the player's latest command"""
        self._player = ActionPlayer(player, len(config.axis_names), config.dt_s)
        self._slow_step = units.to_policy(vectors.max_steps(config, config.motion.approach_share))
        self._near = units.to_policy(vectors.max_steps(config)) * NEAR_STEPS
        self._continues = rtc.settings(config, policy).mode != "off"
        self._max_delay = rtc.max_delay(config, policy)
        self._low, self._high = np.array(player.limits, dtype=np.float64).T
        self._goal: Axes | None = None  # a first command that is approached once the robot is at rest
        self._approach: Approach | None = None
        self._epoch = ("", 0)
        self._oldest_step = 0

    @property
    def is_approaching(self) -> bool:
        return self._goal is not None or self._approach is not None

    @property
    def last_command(self) -> Axes | None:
        """Of the player, or of the approach, which the player does not know."""
        return self._player.last_command if self._approach is None else self._approach.position

    @property
    def executed_steps(self) -> int:
        """Actions of chunks that were executed so far."""
        return self._player.executed_steps

    def wants_next(self, latency_steps: int | None) -> bool:
        return not self.is_approaching and self._player.wants_next(self.step, latency_steps)

    def left_over(self) -> Array | None:
        """`[n, A]`: the actions from the next step on, n is 0 in a hold; None without real-time chunking."""
        return self._player.left_over(self.step) if self._continues else None

    def inference_delay(self, latency_steps: int | None) -> int:
        """The delay to state for real-time chunking. A latency that is not known yet counts as 0: nothing is frozen."""
        return min(latency_steps or 0, self._max_delay)

    def expect(self, control_step: int, latency_steps: int) -> None:
        """An observation of this step was sent. If its chunk is late, few actions follow and then a hold."""
        self._player.expect(control_step + latency_steps + 1)

    def start_at(self, pose: Axes) -> None:
        """The robot stands at this pose. Only before the first motion, and after an arm fell."""
        self._approach = None
        self._player.hold_from(pose)
        self.interrupt()

    def stood_still(self) -> None:
        """No command was sent for so long that the robot rests at the last one. Nothing of before is executed."""
        if self.last_command is not None:
            self.start_at(self.last_command)

    def begin_epoch(self, session_id: str, epoch: int, resumed: bool = False) -> None:
        """A new stream, or a reset. Nothing of before is executed, unless the session goes on (`resumed`)."""
        if (session_id, epoch) == self._epoch:
            return
        self._epoch = (session_id, epoch)
        if resumed:
            self._player.begin_epoch(session_id, epoch, resumed=True)
        else:
            self.interrupt()

    def interrupt(self) -> None:
        """Comes to rest and holds. Chunks of observations up to now are out of date."""
        self._goal = None
        if self._approach is not None:
            self._approach.stop()
        self._player.begin_epoch(*self._epoch)
        self.step += 1  # no observation up to now has this step
        self._oldest_step = self.step

    def take(self, chunk: ActionChunk) -> str:
        """Takes a chunk. The reason why not, or an empty text."""
        if self.is_approaching:
            return "approaching"
        if (chunk.session_id, chunk.epoch) == self._epoch and chunk.first_control_step < self._oldest_step:
            return "interrupted"
        offer = self._player.offer(chunk, self.step)
        if offer.refusal is not None:
            return offer.refusal.value
        last = self._player.last_command
        if self.playing.source == "hold" and last is not None:
            self._judge_first(chunk.actions[offer.index].astype(np.float64), last)
        return ""

    def next(self) -> Command:
        """The next command; each call is one step."""
        if self._goal is not None and self._player.is_at_rest:
            self._begin(self._goal)
        if self._approach is not None:
            return self._follow(self._approach)
        self.playing = self._player.command(self.step)
        self.step += 1
        return self.playing

    def _judge_first(self, target: Axes, last: Axes) -> None:
        """A robot without a chunk comes to rest, and then goes slowly to a first command that is far. Then it needs a
        new chunk, from there."""
        if np.any(np.abs(target - last) > self._near):
            self.interrupt()
            self._goal = target

    def _begin(self, goal: Axes) -> None:
        last = self._player.last_command
        assert last is not None, "a goal is far from it"
        within = np.clip(goal, np.minimum(self._low, last), np.maximum(self._high, last))
        self._goal, self._approach = None, Approach(last, within, self._slow_step, self.stop_steps)

    def _follow(self, approach: Approach) -> Command:
        position = approach.next()
        if approach.is_over:
            self.start_at(position)
        return Command(position, "hold")


def player_config(config: PiperConfig, policy: PolicyInfo) -> PlayerConfig:
    """How this robot plays chunks, in the policy's units: our own limits and those that the policy declares."""
    units = Units(config)
    low, high = (units.to_policy(each) for each in vectors.ranges(config, policy.action.limits))
    spans = np.array([high - low for low, high in AXIS_RANGES] * len(config.arms))
    return PlayerConfig(
        blend_steps=config.chunks.blend_steps,
        blend=config.chunks.blend,
        blend_excluded=vectors.grippers(config),
        max_open_loop_steps=config.chunks.max_open_loop_steps,
        stop_steps=math.ceil(config.motion.stop_within_s * config.control_hz),
        max_step=tuple(units.to_policy(vectors.max_steps(config)).tolist()),
        limits=tuple(zip(low.tolist(), high.tolist(), strict=True)),
        action_range=tuple(units.to_policy(spans).tolist()),
    )
