"""The arms of one robot together: the pose that they measure, their faults, and the last target of each.

It decides nothing about motion. Poses and commands are in the policy's units; the arms take rad and m.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from wavserve.clients.piper import vectors, watch
from wavserve.clients.piper.config import PiperConfig
from wavserve.clients.piper.feedback import Feedback
from wavserve.clients.piper.limits import AXIS_RANGES, STATUS_EMERGENCY_STOP
from wavserve.clients.piper.vectors import Axes, Units
from wavserve.core.errors import WavserveError


class ArmPort(Protocol):
    """What control needs of an arm; `arm.Arm` is the real one."""

    name: str

    @property
    def num_failed_sends(self) -> int: ...
    @property
    def is_stopped(self) -> bool: ...
    def latest(self) -> Feedback: ...
    def enable(self) -> bool: ...
    def command(self, axes: Sequence[float]) -> bool: ...
    def emergency_stop(self) -> None: ...
    def reset_and_drop(self) -> None: ...


class Arms:
    """The arms in the order of the policy's vectors. `feedback` has one entry for each arm.

    In a dry run they are read, and nothing is sent.
    """

    def __init__(self, arms: Sequence[ArmPort], config: PiperConfig, is_dry: bool) -> None:
        self._arms, self._is_dry = arms, is_dry
        self._units = Units(config)
        self._max_age_s = config.watch.max_feedback_age_ms / 1e3
        self._failed_sends = [arm.num_failed_sends for arm in arms]
        self._max_steps = vectors.split(vectors.max_steps(config))
        self._axis_names = [arm.axis_names for arm in config.arms]
        self._targets: list[tuple[float, ...] | None] = [None] * len(arms)
        self._has_obeyed = [False] * len(arms)  # since `begin`

    def latest(self) -> list[Feedback]:
        return [arm.latest() for arm in self._arms]

    def measured(self, feedback: Sequence[Feedback]) -> Axes | None:
        """`[A]`; None until every arm has reported its pose."""
        axes = [each.axes for each in feedback if each.axes is not None]
        return self._units.to_policy(np.array(axes).reshape(-1)) if len(axes) == len(feedback) else None

    def stale(self, feedback: Sequence[Feedback], now: float) -> list[str]:
        """Names of the arms whose feedback is too old."""
        pairs = zip(self._arms, feedback, strict=True)
        return [arm.name for arm, each in pairs if each.age_s(now) > self._max_age_s]

    def begin(self, feedback: Sequence[Feedback], measured: Axes) -> Axes:
        """The pose `[A]` at which motion begins: an arm that still holds is at its last target, any other one where it
        is measured. Failed sends of before do not count any more.
        """
        where = vectors.split(self._units.from_policy(measured))
        held = self._held(feedback)
        targets = [target or _in_range(pose) for target, pose in zip(held, where, strict=True)]
        self._targets = [*targets]
        self._failed_sends = [arm.num_failed_sends for arm in self._arms]
        self._has_obeyed = [False] * len(self._arms)
        return self._units.to_policy(np.array(targets).reshape(-1))

    def outside(self, feedback: Sequence[Feedback], measured: Axes) -> list[str]:
        """Axes that are measured more than a step outside of their range: they would go into it at once."""
        poses = zip(self._held(feedback), vectors.split(self._units.from_policy(measured)), strict=True)
        wide = []
        for (held, pose), names, steps in zip(poses, self._axis_names, self._max_steps, strict=True):
            if held is None:
                axes = zip(names, pose, _in_range(pose), steps, strict=True)
                wide += [name for name, value, nearest, step in axes if abs(nearest - value) > step]
        return wide

    def _held(self, feedback: Sequence[Feedback]) -> list[tuple[float, ...] | None]:
        """The last target of each arm that still holds it."""
        holds = (each.is_enabled and each.takes_commands for each in feedback)
        return [target if hold else None for target, hold in zip(self._targets, holds, strict=True)]

    def enable(self, feedback: Sequence[Feedback]) -> None:
        """Asks the arms that are not enabled to hold themselves."""
        for arm, each in zip(self._arms, feedback, strict=True):
            if not each.is_enabled:
                arm.enable()

    def send(self, command: Axes) -> list[tuple[ArmPort, str]]:
        """Sends a command `[A]` to every arm that is not stopped. Returns the arms that refused it, and why."""
        refused = []
        for i, (arm, axes) in enumerate(zip(self._arms, vectors.split(self._units.from_policy(command)), strict=True)):
            if arm.is_stopped:
                continue
            self._targets[i] = target = _in_range(axes)
            try:
                if not self._is_dry:
                    arm.command(target)
            except WavserveError as error:
                refused.append((arm, error.message))
        return refused

    def faults(
        self, feedback: Sequence[Feedback], now: float, may_be_disabled: bool
    ) -> list[tuple[ArmPort, list[str]]]:
        """The arms with new faults. An arm that is stopped has none.

        `may_be_disabled`: the arms are being enabled. An arm that was not enabled yet when that ended has lost nothing.
        """
        faulty = []
        for i, (arm, each) in enumerate(zip(self._arms, feedback, strict=True)):
            failed, self._failed_sends[i] = arm.num_failed_sends - self._failed_sends[i], arm.num_failed_sends
            self._has_obeyed[i] |= each.is_enabled and each.takes_commands
            if arm.is_stopped:
                continue
            found = watch.faults(each, failed, now, self._max_age_s)
            found += [] if may_be_disabled or not self._has_obeyed[i] else watch.lost_control(each)
            if found:
                faulty.append((arm, found))
        return faulty

    def emergency_stop(self) -> None:
        """Stops every arm, from any thread and from a signal handler."""
        if not self._is_dry:
            for arm in self._arms:
                arm.emergency_stop()

    def repeat_stops(self, feedback: Sequence[Feedback]) -> None:
        """A stop may be lost: a cable is out, the bus is full. It is sent until the arm reports that it is stopped."""
        for arm, each in zip(self._arms, feedback, strict=True):
            is_told = each.status is not None and each.status.arm_status == STATUS_EMERGENCY_STOP
            if arm.is_stopped and not is_told:
                arm.emergency_stop()

    def reset_and_drop_stopped(self) -> None:
        """Ends the emergency stop of every stopped arm: THEY FALL. The others keep their last target."""
        for i, arm in enumerate(self._arms):
            if arm.is_stopped:
                arm.reset_and_drop()
                self._targets[i] = None


def _in_range(axes: Sequence[float]) -> tuple[float, ...]:
    """Inside the arm's own ranges: a measured pose may lie a hair outside of them."""
    return tuple(min(max(value, low), high) for value, (low, high) in zip(axes, AXIS_RANGES, strict=True))
