"""The control under any order of events, on a virtual clock and without a bus: what each arm is sent."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.clients.chunks import chunk_of
from tests.clients.piper.stage import config, policy
from wavserve.clients.piper import vectors
from wavserve.clients.piper.control import Control, Robot
from wavserve.clients.piper.feedback import Feedback, Gripper, Pose, Status
from wavserve.clients.piper.log import RunLog
from wavserve.clients.piper.mailbox import Arrived, Asked, LinkView, Mailbox, Moment
from wavserve.clients.piper.phases import Order, Phase
from wavserve.clients.piper.simulated import REST_POSE

NUM_TICKS = 1500


class Time:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class PlainArm:
    """An arm without a bus. It checks that what it gets is one step away from what it got before."""

    def __init__(self, name: str, time: Time, steps: Sequence[float]) -> None:
        self.name, self._time, self._steps = name, time, np.array(steps)
        self.num_failed_sends, self.is_stopped, self.num_sent = 0, False, 0
        self.is_silent, self.fault = False, 0
        self._axes, self._last = np.array(REST_POSE), np.array(REST_POSE)
        self._seen_s, self._is_enabled, self._mode = time.now, False, 0

    def passes(self) -> None:
        """The time of one step."""
        self._seen_s = self._seen_s if self.is_silent else self._time.now
        self._axes = self._axes if self.is_stopped else self._last

    def latest(self) -> Feedback:
        at, axes = self._seen_s, tuple(self._axes.tolist())
        status = Status(self._mode, 1 if self.is_stopped else self.fault, 0, at)
        flags = (64 if self._is_enabled else 0,) * 6
        return Feedback(Pose(axes[:6], at), Gripper(axes[6], at), status, flags, at, 1, 0)

    def enable(self) -> bool:
        self._is_enabled = not self.is_stopped
        return self._is_enabled

    def command(self, axes: Sequence[float]) -> bool:
        assert not self.is_stopped
        change = np.abs(np.array(axes) - self._last)
        assert (change <= self._steps * 1.0001).all(), "a jump"
        self._last, self._mode = np.array(axes), 1
        self.num_sent += 1
        return True

    def emergency_stop(self) -> None:
        self.is_stopped = True

    def reset_and_drop(self) -> None:
        self.is_stopped, self._is_enabled, self._mode, self.fault = False, False, 0, 0
        self._last = self._axes


class SlowArm(PlainArm):
    """An arm whose drivers are not enabled yet."""

    def enable(self) -> bool:
        return not self.is_stopped


def test_a_fault_while_the_arms_are_enabled_stops_no_arm_that_was_not_enabled_yet(tmp_path: Path) -> None:
    log, time, robot = RunLog(tmp_path / "run.jsonl", 10**6, 1), Time(), config()
    arms = [SlowArm(arm.name, time, vectors.max_steps(robot)[:7]) for arm in robot.arms]
    mailbox = Mailbox(link=LinkView(False, "s", 1, 6, at_s=math.inf))
    control = Control(robot, policy(robot), Robot(arms, mailbox, log, clock=time))

    def ticks(number: int) -> None:
        for _ in range(number):
            time.now += 1 / 30
            for arm in arms:
                arm.passes()
            control.tick()

    control.order(Order.ARM)
    ticks(2)
    assert control.status.phase is Phase.ENABLING
    arms[0].fault = 7
    ticks(5)
    log.close()
    assert (arms[0].is_stopped, arms[1].is_stopped) == (True, False)
    assert (control.status.phase, control.counts.faults) == (Phase.STOPPED, 1)


class World:
    """Draws what happens between two ticks."""

    def __init__(self, seed: int, log: RunLog) -> None:
        self.draw, self.rng, self.time = random.Random(seed), np.random.default_rng(seed), Time()
        robot = config()
        steps = vectors.max_steps(robot)[:7]
        self.arms = [PlainArm(arm.name, self.time, steps) for arm in robot.arms]
        self.mailbox = Mailbox(link=LinkView(False, "s", 1, 6, at_s=math.inf))
        self.control = Control(robot, policy(robot), Robot(self.arms, self.mailbox, log, clock=self.time))
        self.sequence, self.moments = 0, list[Moment]()

    def happens(self, chance: float) -> bool:
        return self.draw.random() < chance

    def passes(self) -> None:
        self.time.now += 1 / 30 + (self.draw.choice((0.3, 2.0)) if self.happens(0.004) else 0.0)
        for arm in self.arms:
            arm.passes()
            arm.is_silent = arm.is_silent and not self.happens(0.05)

    def orders(self) -> None:
        phase = self.control.status.phase
        if self.happens(0.2 if phase is Phase.DISARMED else 0.02):
            self.control.order(Order.ARM)
        if self.happens(0.004):
            self.control.order(Order.HOLD)
        if self.happens(0.1 if phase is Phase.STOPPED else 0.002):
            self.control.order(Order.RECOVER)
        if self.happens(0.002):
            self.control.emergency_stop("key")

    def troubles(self) -> None:
        arm = self.draw.choice(self.arms)
        arm.is_silent = arm.is_silent or self.happens(0.002)
        arm.fault = 7 if self.happens(0.002) else arm.fault
        link = self.mailbox.link
        if self.happens(0.01):
            self.mailbox.link = replace(link, is_lost=True)
        elif self.happens(0.05):
            epoch, latency = link.epoch + self.happens(0.3), self.draw.choice((None, 0, 6, 30))
            self.mailbox.link = LinkView(False, "s", epoch, latency, "blind" * self.happens(0.2), at_s=math.inf)

    def chunks(self) -> None:
        if self.mailbox.moment is not None:
            self.moments.append(self.mailbox.moment)
        if not self.moments or not self.happens(0.15):
            return
        moment = self.draw.choice(self.moments[-60:]) if self.happens(0.3) else self.moments[-1]
        self.sequence = max(0, self.sequence + self.draw.choice((1, 1, 1, 0, -3)))
        steps = self.rng.normal(0, self.draw.choice((0.001, 0.02, 0.3)), (self.draw.choice((1, 5, 54)), 14))
        actions = np.array(moment.state) + np.cumsum(steps, axis=0)
        if self.happens(0.05):
            actions[0, 3] = np.nan
        actions = actions[:, :13] if self.happens(0.05) else actions
        actions = actions * self.draw.choice((57.3, 1e30)) if self.happens(0.1) else actions
        epoch = self.mailbox.link.epoch - self.happens(0.1)
        origin = {"epoch": epoch, "session_id": "other" if self.happens(0.05) else "s"}
        made = chunk_of(actions.astype(np.float32), moment.control_step, self.sequence, **origin)
        if self.happens(0.3):
            self.mailbox.to_control.append(Asked(self.sequence, moment.control_step, {}))
        self.mailbox.to_control.append(Arrived(made, 0.1))

    def tick(self) -> None:
        was_disarmed = self.control.status.phase is Phase.DISARMED
        before = [arm.num_sent for arm in self.arms]
        self.control.tick()
        sent = [arm.num_sent - count for arm, count in zip(self.arms, before, strict=True)]
        assert max(sent) <= 1, "a burst"
        if was_disarmed and self.control.status.phase is Phase.DISARMED:
            assert sent == [0, 0]


@pytest.mark.parametrize("seed", range(12))
def test_no_order_of_events_makes_an_arm_jump_or_move_while_it_is_disarmed_or_stopped(
    seed: int, tmp_path: Path
) -> None:
    log = RunLog(tmp_path / "run.jsonl", 10**7, 1)
    world = World(seed, log)
    for _ in range(NUM_TICKS):
        for happens in (world.passes, world.orders, world.troubles, world.chunks, world.tick):
            happens()
    log.close()
    assert sum(arm.num_sent for arm in world.arms) > NUM_TICKS / 4
    assert world.control.counts.executed > 10
