"""A session over a robot's stream: the client of real robots, which sees a dead link at once and connects again.

Knows neither torch nor LeRobot.
"""

from __future__ import annotations

import math
import queue
import time
from collections.abc import Mapping

from lerobot_policy_wavserve.sessions import Asking, Moment, Seen, given
from wavserve.clients.reconnect import is_of_handover
from wavserve.clients.robot import (
    Event,
    LinkDown,
    RobotDescription,
    RobotObservation,
    RobotOptions,
    Stopped,
)
from wavserve.clients.robot_client import RobotClient
from wavserve.core.control import DropReason, GoAway, ObservationDropped, StreamError, Welcome
from wavserve.core.errors import DeadlineExceeded, NotReady, Overloaded, WavserveError
from wavserve.core.messages import ActionChunk, PolicyInfo
from wavserve.core.tracing import Tracer

_LINK_TIMEOUT_S = 5.0
"""LeRobot's loops may keep Python busy for longer than a robot's own program."""
_GRACE_S = 1.0
"""How much longer than its deadline a plan is waited for: the server's own error says more than a timeout."""
_DROPPED: Mapping[DropReason, type[WavserveError]] = {
    DropReason.TOO_OLD: DeadlineExceeded,
    DropReason.OVERLOADED: Overloaded,
}


class StreamSession:
    """A session over `Control`. The stream opens with the first plan of an episode."""

    def __init__(
        self, target: str, robot_id: str, policy: PolicyInfo, asking: Asking, tracer: Tracer | None = None
    ) -> None:
        """`target`: `host:port`, several with commas. `robot_id`: of no other session. `tracer`: as in `PlanClient`."""
        self._target = target
        self._robot = RobotDescription.as_declared(policy, robot_id, given(policy.cameras, asking.orientation))
        self._seed: int | None = None
        self._deadline_ms = asking.deadline_ms
        self._options = RobotOptions(
            policy_digest=policy.digest,
            jpeg_quality=asking.jpeg_quality,
            deadline_ms=asking.deadline_ms,
            planner=asking.planner,
            rtc=asking.rtc,
            link_timeout_s=_LINK_TIMEOUT_S,
            tracer=tracer or Tracer(),
        )
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._client: RobotClient | None = None

    def begin(self, seed: int | None) -> None:
        """As `Session.begin`. A robot has one session at a time, so the new stream's replaces the earlier one."""
        self.close()
        self._seed = seed

    def plan(self, seen: Seen, moment: Moment) -> ActionChunk:
        """As `Session.plan`. Raises NotReady while the client connects again, and why it does not any more.

        Of several gateways the next one is asked at once: there the same observation is sent again, until its deadline.
        """
        observation = RobotObservation(
            images=seen.images,
            state=seen.state,
            control_step=moment.control_step,
            executed_steps=moment.control_step,
            instruction=seen.instruction,
            left_over=moment.left_over,
            inference_delay=moment.inference_delay,
            seed=self._seed,
        )
        client = self._connected()
        self._forget_events()
        late_at = math.inf if self._deadline_ms is None else time.monotonic() + self._deadline_ms / 1e3
        while True:
            sequence = client.observe(observation)
            if sequence is None and client.stopped is not None:
                raise client.stopped
            if sequence is None and client.is_alone:
                raise NotReady(f"{self._target}: the stream is not open; the client connects again")
            chunk = None if sequence is None else self._answer(sequence, late_at + _GRACE_S)
            if chunk is not None:
                return chunk
            self._wait_for_stream(late_at + _GRACE_S)
            if time.monotonic() >= late_at:
                raise self._late()

    def close(self) -> None:
        """Ends the stream in order."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _connected(self) -> RobotClient:
        if self._client is None:
            client = RobotClient(self._target, self._robot, self._options, self._events.put)
            try:
                client.connect()
            except BaseException:
                client.close()
                raise
            self._client = client
        return self._client

    def _forget_events(self) -> None:
        """What happened before an observation is not its fate."""
        while not self._events.empty():
            self._events.get()

    def _wait_for_stream(self, until: float) -> None:
        """Until another gateway has the stream. Raises what all of them met."""
        while not isinstance(event := self._next(until), Welcome):
            if isinstance(event, Stopped) or (isinstance(event, LinkDown) and not event.moves):
                raise event.error

    def _next(self, until: float) -> Event:
        """The next event. Raises DeadlineExceeded when none comes until then (monotonic, s)."""
        try:
            return self._events.get(timeout=None if until == math.inf else max(0.0, until - time.monotonic()))
        except queue.Empty:
            raise self._late() from None

    def _late(self) -> DeadlineExceeded:
        return DeadlineExceeded(f"{self._target}: no answer within {self._deadline_ms} ms")

    def _answer(self, sequence: int, until: float) -> ActionChunk | None:
        """Waits for the chunk of an observation; None: the stream goes to another gateway without it.

        What belongs to earlier ones is dropped.
        """
        while True:
            event = self._next(until)
            if isinstance(event, ActionChunk) and event.sequence == sequence:
                return event
            if isinstance(event, LinkDown) and event.moves:
                return None
            if self._client is not None and not self._client.is_alone and is_of_handover(event):
                continue
            error = _failure(event, sequence)
            if error is not None:
                raise error


def _failure(event: Event, sequence: int) -> WavserveError | None:
    """Why an observation gets no chunk; None: it may still get one."""
    match event:
        case LinkDown() | Stopped():
            return event.error
        case StreamError() if event.fatal or event.sequence == sequence:
            return event.error()
        case ObservationDropped() if event.sequence == sequence:
            return _DROPPED.get(event.reason, NotReady)(f"the observation was dropped: {event.reason.value}")
        case GoAway():
            return NotReady(f"the service stops: {event.reason}")
    return None
