"""The control of one robot, one step at a time: what each arm is sent, and why.

It plays chunks, holds when the robot is blind or cut off, and stops on a fault. A hold repeats the last command, and
never a measured pose. Nothing moves before the operator arms the robot. It knows no network, no camera and no terminal:
those post to the mailbox and give orders.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from wavserve.clients.piper import watch
from wavserve.clients.piper.arms import ArmPort, Arms
from wavserve.clients.piper.config import PiperConfig
from wavserve.clients.piper.feedback import Feedback
from wavserve.clients.piper.log import RunLog
from wavserve.clients.piper.mailbox import Asked, Mailbox, Moment
from wavserve.clients.piper.phases import Order, Phase, Status
from wavserve.clients.piper.playback import Playback
from wavserve.clients.piper.recorder import Recorder, Tick
from wavserve.clients.piper.vectors import Axes
from wavserve.clients.player import Command
from wavserve.core.control import HoldReason
from wavserve.core.messages import PolicyInfo
from wavserve.core.types import Clock

ENABLE_WITHIN_S = 3.0


@dataclass(frozen=True, slots=True)
class Robot:
    """What control acts on."""

    arms: Sequence[ArmPort]
    mailbox: Mailbox
    log: RunLog
    is_dry: bool = False
    """everything is decided and logged, and nothing is sent to the arms"""
    clock: Clock = time.monotonic


class Control:
    """`tick` is called once for each control step, by one thread. `order` and `emergency_stop`: by any thread."""

    def __init__(
        self,
        config: PiperConfig,
        policy: PolicyInfo,
        robot: Robot,
    ) -> None:
        self._arms = Arms(robot.arms, config, robot.is_dry)
        self._mailbox, self._log = robot.mailbox, robot.log
        self._clock, self._is_dry = robot.clock, robot.is_dry
        self._max_view_age_s = config.server.link_timeout_s
        self._standstill = watch.Standstill(config.watch.max_feedback_age_ms / 1e3, config.dt_s)
        self._max_clamped_steps = config.motion.max_clamped_steps
        self._playback = Playback(config, policy)
        self._recorder = Recorder(config, robot.log)
        self.counts = self._recorder.counts
        self.status = Status(Phase.DISARMED, "", "", ())
        self._phase = Phase.DISARMED
        self._hold = ""  # why the robot may not play
        self._operator_hold = ""  # the same, until the operator arms the robot again
        self._orders: deque[Order] = deque()
        self._stop_wanted = ""
        self._was_stopped = False
        self._num_clamped = 0  # in a row
        self._enabling_since = 0.0
        self._leaves_in: int | None = None  # ticks

    @property
    def was_stopped(self) -> bool:
        """Whether a fault or an emergency stop has happened in this run."""
        return self._was_stopped

    def order(self, order: Order) -> None:
        """Obeyed at the next tick."""
        self._orders.append(order)

    def emergency_stop(self, why: str) -> None:
        """Stops every arm at once, also from a signal handler; latched."""
        self._stop_wanted = why
        self._arms.emergency_stop()

    def tick(self, late_s: float = 0.0) -> None:
        """One control step. `late_s`: how late it begins, for the log."""
        now = self._clock()
        feedback = self._arms.latest()
        measured = self._arms.measured(feedback)
        self._obey(feedback, measured, now)
        self._notice_standstill(now)
        self._look_for_faults(feedback, now)
        self._arms.repeat_stops(feedback)
        self._update_hold(now)
        self._receive()
        command = self._next(feedback, now)
        self._send(command)
        tick = Tick(now, late_s, self._phase.value, self._hold, self._playback.step, command, measured)
        self._publish(tick)

    # Orders

    def _obey(self, feedback: Sequence[Feedback], measured: Axes | None, now: float) -> None:
        stops = bool(self._stop_wanted)
        if stops:
            why, self._stop_wanted = self._stop_wanted, ""
            self._log.write("emergency_stop", why=why)
            self._stop(f"emergency stop: {why}")
            self._arms.emergency_stop()  # once more: a recovery may have crossed it
        while self._orders:
            order = self._orders.popleft()
            self._log.write("order", order=order.value, phase=self._phase.value)
            match order:
                case Order.ARM if self._phase is Phase.DISARMED:
                    self._arm(feedback, measured, now)
                case Order.ARM if self._phase is Phase.READY and self._leaves_in is None:
                    self._operator_hold, self._num_clamped = "", 0
                case Order.HOLD:
                    self._operator_hold = "operator"
                case Order.RECOVER if self._phase is Phase.STOPPED and not stops:
                    self._recover()
                case Order.LEAVE if self._leaves_in is None:
                    self._operator_hold = "leaving"
                    moves = self._phase in {Phase.READY, Phase.STOPPED}
                    self._leaves_in = self._playback.stop_steps + 2 if moves else 0
                case _:
                    self._log.write("refused", order=order.value, why=self._phase.value)

    def _arm(self, feedback: Sequence[Feedback], measured: Axes | None, now: float) -> None:
        """Begins with the enabling, at the pose of `Arms.begin`."""
        stale = self._arms.stale(feedback, now)
        if stale or measured is None:
            self._log.write("refused", order="arm", why=f"no feedback of {', '.join(stale)}")
            return
        outside = self._arms.outside(feedback, measured)
        if outside:
            why = f"outside of its range by more than a step: {', '.join(outside)}"
            self._log.write("refused", order="arm", why=why)
            return
        self._playback.start_at(self._arms.begin(feedback, measured))
        self._operator_hold, self._enabling_since, self._num_clamped = "", now, 0
        self._phase = Phase.READY if self._is_dry else Phase.ENABLING
        self._log.write("armed", pose=measured)

    def _recover(self) -> None:
        """The stopped arms fall; the operator holds them. The others keep their last target."""
        self._arms.reset_and_drop_stopped()
        self._phase, self._hold = Phase.DISARMED, ""
        self._log.write("recovered")

    # Faults and holds

    def _notice_standstill(self, now: float) -> None:
        """The arms rest at their last target by now. They hold there until a chunk of a new observation comes."""
        gap_s = self._standstill.passed(now)
        if not gap_s or self._phase not in {Phase.READY, Phase.STOPPED}:
            return
        self._playback.stood_still()
        self.counts.holds += not self._hold
        why = f"the process stood still for {gap_s:.2f} s"
        self._log.write("hold", why=why, before=self._hold, step=self._playback.step)

    def _look_for_faults(self, feedback: Sequence[Feedback], now: float) -> None:
        if self._is_dry or self._phase in {Phase.DISARMED, Phase.LEFT} or self._standstill.excuses(now):
            return
        for arm, faults in self._arms.faults(feedback, now, may_be_disabled=self._phase is Phase.ENABLING):
            self._fault(arm, faults)

    def _fault(self, arm: ArmPort, faults: Sequence[str]) -> None:
        arm.emergency_stop()
        self.counts.faults += 1
        self._log.write("fault", arm=arm.name, faults=faults)
        self._stop(f"arm {arm.name}: {faults[0]}")

    def _stop(self, why: str) -> None:
        """Latched. Arms that are not stopped themselves come to rest and hold."""
        self._was_stopped = True
        if self._phase is Phase.READY:
            self._playback.interrupt()
        self.counts.holds += not self._hold
        self._hold = self._hold if self._phase is Phase.STOPPED else why
        if self._phase is not Phase.LEFT:
            self._phase = Phase.STOPPED

    def _is_link_lost(self, now: float) -> bool:
        """The link thread says so, or says nothing any more."""
        link = self._mailbox.link
        return link.is_lost or now - link.at_s > self._max_view_age_s

    def _update_hold(self, now: float) -> None:
        """Begins or ends a hold for another reason than the lack of a chunk."""
        link = self._mailbox.link
        self._playback.begin_epoch(link.session_id, link.epoch, link.resumed)
        if self._phase is not Phase.READY:
            return
        why = self._operator_hold or link.problem or ("link lost" if self._is_link_lost(now) else "")
        if why and not self._hold:
            self.counts.holds += 1
            self._playback.interrupt()
        if why != self._hold:
            self._log.write("hold", why=why, before=self._hold, step=self._playback.step)
        self._hold = why

    def _hold_reason(self, command: Command, now: float) -> HoldReason | None:
        if self._phase is Phase.STOPPED:
            return HoldReason.ARM_FAULT
        if self._operator_hold or self._phase is not Phase.READY:
            return HoldReason.LIMIT if self._operator_hold.startswith("limit") else HoldReason.OPERATOR
        if self._is_link_lost(now):
            return HoldReason.LINK_LOST
        return HoldReason.NO_CHUNK if command.source == "hold" else None

    # Chunks and commands

    def _receive(self) -> None:
        while self._mailbox.to_control:
            message = self._mailbox.to_control.popleft()
            if isinstance(message, Asked):
                self._recorder.asked(message)
                latency = self._mailbox.link.latency_steps
                if latency is not None:
                    self._playback.expect(message.control_step, latency)
            else:
                may_play = self._phase is Phase.READY and not self._hold
                refused = self._playback.take(message.chunk) if may_play else self._hold or self._phase.value
                self._recorder.arrived(message, refused, self._playback.step, self._playback.is_approaching)

    def _next(self, feedback: Sequence[Feedback], now: float) -> Command:
        command = Command(None, "hold")
        if self._phase is Phase.ENABLING:
            self._enable(feedback, now)
            command = Command(self._playback.last_command, "hold")
        elif self._phase in {Phase.READY, Phase.STOPPED}:
            command = self._playback.next()
            self._watch_clamps(command)
        if self._leaves_in is not None:
            self._leaves_in -= 1
            if self._leaves_in < 0:
                self._phase = Phase.LEFT
        return command

    def _enable(self, feedback: Sequence[Feedback], now: float) -> None:
        if all(each.is_enabled and each.takes_commands for each in feedback):
            self._phase = Phase.READY
            self._log.write("enabled", after_s=round(now - self._enabling_since, 3))
        elif now - self._enabling_since > ENABLE_WITHIN_S:
            self._phase = Phase.DISARMED
            self._log.write("refused", order="arm", why=f"not enabled within {ENABLE_WITHIN_S:g} s")
        else:
            self._arms.enable(feedback)

    def _watch_clamps(self, command: Command) -> None:
        self._num_clamped = self._num_clamped + 1 if command.clamped and command.source != "hold" else 0
        if self._num_clamped > self._max_clamped_steps:
            self._operator_hold = f"limit: {self._num_clamped} clamped steps in a row"

    def _send(self, command: Command) -> None:
        if command.action is not None:
            for arm, fault in self._arms.send(command.action):
                self._fault(arm, [fault])

    def _publish(self, tick: Tick) -> None:
        action, link, playback = tick.command.action, self._mailbox.link, self._playback
        self.status = Status(self._phase, self._hold, link.refusal, () if action is None else tuple(action.tolist()))
        may_play = self._phase is Phase.READY and not self._hold
        self._recorder.add(tick, waits=may_play)
        report = self._recorder.report(tick, self._hold_reason(tick.command, tick.at_s))
        if report is not None:
            self._mailbox.reports.append(report)
        if tick.measured is None:
            return
        self._mailbox.moment = Moment(
            control_step=playback.step,
            state=tuple(tick.measured.tolist()),
            executed_steps=playback.executed_steps,
            wants_chunk=may_play and playback.wants_next(link.latency_steps),
            at_s=tick.at_s,
            left_over=playback.left_over(),
            inference_delay=playback.inference_delay(link.latency_steps),
        )
