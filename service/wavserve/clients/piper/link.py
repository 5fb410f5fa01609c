"""The robot's side of the link, on a thread of its own: sends what the robot sees, hands chunks to the control thread.

One observation is under way at a time. A blind robot sends none: the control thread is told why. It knows no arm.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Protocol

from wavserve.clients.latency import LatencyWindow
from wavserve.clients.piper import rtc
from wavserve.clients.piper.cameras import Camera, Frame
from wavserve.clients.piper.config import PiperConfig
from wavserve.clients.piper.log import RunLog
from wavserve.clients.piper.mailbox import Arrived, Asked, LinkView, Mailbox, Moment
from wavserve.clients.piper.vectors import vector
from wavserve.clients.robot import (
    CameraDescription,
    Event,
    LinkDown,
    LinkState,
    RobotDescription,
    RobotObservation,
    RobotOptions,
    Stopped,
)
from wavserve.core.control import (
    DropReason,
    ExecutionReport,
    GoAway,
    ObservationDropped,
    ResetAck,
    StreamError,
    Welcome,
)
from wavserve.core.errors import WavserveError
from wavserve.core.messages import ActionChunk
from wavserve.core.tracing import Tracer
from wavserve.core.types import Clock

POLL_S = 0.004
RETRY_S = 0.5
"""between an observation that was refused and the next one"""
GIVE_UP_AFTER_S = 1.0
"""beyond the deadline; an observation without any answer is then forgotten"""
MAX_MOMENT_AGE_S = 0.25
"""An older moment means that the control thread stands still."""
_REFUSALS = (DropReason.OVERLOADED, DropReason.TOO_OLD)
"""Drops that another observation at once would meet too."""


class Client(Protocol):
    """What the link needs of `RobotClient`."""

    @property
    def link(self) -> LinkState: ...
    @property
    def latency(self) -> LatencyWindow: ...
    @property
    def stopped(self) -> WavserveError | None: ...
    def observe(self, observation: RobotObservation) -> int | None: ...
    def report(self, report: ExecutionReport) -> None: ...
    def poll(self) -> Event | None: ...


def description(config: PiperConfig) -> RobotDescription:
    """The robot, as the client compares it with the policy."""
    return RobotDescription(
        robot_id=config.robot_id,
        embodiment=config.embodiment,
        state=vector(config),
        action=vector(config),
        control_hz=config.control_hz,
        cameras=tuple(CameraDescription(camera.name, camera.orientation) for camera in config.cameras),
    )


def options(config: PiperConfig, policy_digest: str, tracer: Tracer) -> RobotOptions:
    """`policy_digest`: of the policy that passed the checks; no other one may move the robot later."""
    return RobotOptions(
        policy_digest=policy_digest,
        deadline_ms=config.server.deadline_ms,
        planner=config.policy.planner,
        rtc=rtc.request(config),
        link_timeout_s=config.server.link_timeout_s,
        tracer=tracer,
    )


class PolicyLink:
    """Runs until `close`. `step` is one round, for tests."""

    def __init__(
        self, config: PiperConfig, client: Client, cameras: Sequence[Camera], mailbox: Mailbox, log: RunLog,
        clock: Clock = time.monotonic,
    ) -> None:  # fmt: skip
        self._config, self._client, self._cameras = config, client, cameras
        self._mailbox, self._log, self._clock = mailbox, log, clock
        self._under_way: tuple[int, float] | None = None  # sequence, and when it was sent
        self._settled_s = 0.0  # moments up to here do not know the last answer yet
        self._not_before = 0.0
        self._refusal = ""  # why the latest observation has no chunk
        self._was_lost = True
        self._ended = threading.Event()
        self.failure = ""
        self._thread = threading.Thread(target=self._run, name="link", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._thread.join(2.0)

    def step(self) -> None:
        while (event := self._client.poll()) is not None:
            self._take(event)
        problem = self._problem()
        self._publish(problem)
        while self._mailbox.reports:
            self._client.report(self._mailbox.reports.popleft())
        moment = self._mailbox.moment
        if moment is not None and not problem and self._may_observe(moment):
            self._observe(moment)

    def _run(self) -> None:
        while not self._ended.wait(POLL_S):
            try:
                self.step()
            except Exception as error:  # noqa: BLE001  the robot holds, and the operator is told
                self.failure = f"{type(error).__name__}: {error}"
                problem = f"the link failed by a bug: {self.failure}; restart"
                self._mailbox.link = LinkView(is_lost=True, problem=problem)
                self._log.write("link", failure=self.failure)
                return

    def _take(self, event: Event) -> None:
        match event:
            case ActionChunk():
                self._refusal = ""
                self._mailbox.to_control.append(Arrived(event, self._settle(event.sequence)))
            case ObservationDropped():
                self._settle(event.sequence)
                if event.reason in _REFUSALS:
                    self._refused(f"the observation was dropped: {event.reason.value}", event.retry_after_ms)
                self._log.write("dropped", sequence=event.sequence, reason=event.reason.value)
            case StreamError():
                if event.sequence is not None:
                    self._settle(event.sequence)
                self._refused(f"{event.name}: {event.message}", event.retry_after_ms)
                self._log.write("link", error=event.name, message=event.message, fatal=event.fatal)
            case Welcome():
                self._under_way = None
                self._log.write("link", welcome=event.session_id[:8], epoch=event.epoch, resumed=event.resumed)
            case ResetAck():
                self._under_way = None
            case LinkDown():
                self._under_way = None
                self._log.write("link", down=event.error.message, pause_s=round(event.pause_s, 3))
            case Stopped():
                self._log.write("link", stopped=event.error.message)
            case GoAway():
                self._log.write("link", go_away=event.reason, reconnect_within_ms=event.reconnect_within_ms)

    def _refused(self, why: str, retry_after_ms: int) -> None:
        """Observes again later, with what the robot sees then."""
        self._refusal = why
        self._not_before = self._clock() + max(RETRY_S, retry_after_ms / 1e3)

    def _settle(self, sequence: int) -> float | None:
        """An answer came. The seconds that it took, when it answers the observation under way."""
        if self._under_way is None or sequence < self._under_way[0]:
            return None
        sent_s, now = self._under_way[1], self._clock()
        self._under_way, self._settled_s = None, now
        return round(now - sent_s, 4)

    def _problem(self) -> str:
        if self._client.stopped is not None:
            return f"the client connects no more: {self._client.stopped.message}"
        problems = ((camera.config.name, camera.problem()) for camera in self._cameras)
        return next((f"camera {name}: {problem}" for name, problem in problems if problem is not None), "")

    def _publish(self, problem: str) -> None:
        link = self._client.link
        if link.lost != self._was_lost:
            self._was_lost = link.lost
            self._log.write("link", lost=link.lost, silent_s=round(min(link.silent_s, 1e6), 3))
        latency = self._client.latency.steps(self._config.dt_s)
        now = self._clock()
        self._mailbox.link = LinkView(
            is_lost=link.lost,
            session_id=link.session_id,
            epoch=link.epoch,
            latency_steps=latency,
            problem=problem,
            refusal=self._refusal,
            resumed=link.resumed,
            at_s=now,
        )

    def _may_observe(self, moment: Moment) -> bool:
        """Whether the control thread wants a chunk, knows the last answer, and none is under way."""
        now, link = self._clock(), self._client.link
        if self._under_way is not None:
            limit_s = self._config.server.deadline_ms / 1e3 + GIVE_UP_AFTER_S
            if now - self._under_way[1] <= limit_s:
                return False
            self._log.write("dropped", sequence=self._under_way[0], reason="no_answer")
            self._under_way = None
        fresh = moment.at_s > self._settled_s and now - moment.at_s <= MAX_MOMENT_AGE_S
        return moment.wants_chunk and fresh and not link.lost and now >= self._not_before

    def _observe(self, moment: Moment) -> None:
        frames = {camera.config.name: camera.latest() for camera in self._cameras}
        seen: dict[str, Frame] = {name: frame for name, frame in frames.items() if frame is not None}
        now = self._clock()
        sequence = self._client.observe(
            RobotObservation(
                images={name: frame.picture for name, frame in seen.items()},
                state=moment.state,
                control_step=moment.control_step,
                executed_steps=moment.executed_steps,
                instruction=self._config.instruction,
                left_over=moment.left_over,
                inference_delay=moment.inference_delay,
                captured_mono_ns=min((round(frame.captured_s * 1e9) for frame in seen.values()), default=0),
            )
        )
        if sequence is None:
            return
        self._under_way = (sequence, now)
        ages = {name: round((now - frame.captured_s) * 1e3, 1) for name, frame in seen.items()}
        num_left_over = 0 if moment.left_over is None else len(moment.left_over)
        self._mailbox.to_control.append(Asked(sequence, moment.control_step, ages, num_left_over))
