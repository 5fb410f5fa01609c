"""A robot's stream without its network: when it is open, what may be written, and where the next one is opened.

The async client drives it and does all I/O. Time comes from a clock that is given. Any thread may call any method.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from wavserve.clients.gateways import Route
from wavserve.clients.latency import LatencyWindow
from wavserve.clients.reconnect import LOST_SESSION, Backoff, Search
from wavserve.clients.robot import Event, LinkDown, LinkState, RobotDescription, RobotObservation, RobotOptions, Stopped
from wavserve.clients.robot_observations import Observations, Waiting
from wavserve.clients.robot_outbox import Controls, observation_message
from wavserve.clients.robot_session import RobotSession
from wavserve.clients.robot_spans import RobotSpans
from wavserve.core.control import (
    Bye,
    ClientMessage,
    ControlObservation,
    DropReason,
    ExecutionReport,
    GoAway,
    Hello,
    ObservationDropped,
    Ping,
    Pong,
    ResetAck,
    ResetStream,
    ServerMessage,
    StreamError,
    Welcome,
)
from wavserve.core.errors import InvalidAnswer, NotReady, WavserveError
from wavserve.core.messages import ActionChunk, EncodedImage, PolicyInfo
from wavserve.core.types import Clock

MAX_EVENTS = 256
"""Events that wait for the program. A program that never asks loses the oldest."""


class RobotCore:
    """The state of a robot's client. Everything that happens becomes an event, in order."""

    def __init__(
        self,
        robot: RobotDescription,
        options: RobotOptions,
        clock: Clock = time.monotonic,
        draw: Callable[[float, float], float] = random.uniform,
        targets: Sequence[str] = ("",),
    ) -> None:
        """`draw`: gives a number between two others. `targets`: the addresses of the gateways."""
        self.robot, self.options = robot, options
        self.latency = LatencyWindow()
        """from an observation to its chunk"""
        self._clock = clock
        self._search = Search(Route(robot.robot_id, targets, clock), Backoff(*options.backoff_s, draw))
        self.is_alone = len(targets) == 1
        """whether there is one gateway only"""
        self._lock = threading.RLock()
        self._events: deque[Event] = deque(maxlen=MAX_EVENTS)
        self._session = RobotSession(robot, options)
        self._observations = Observations(RobotSpans(options.tracer, robot.robot_id), self._events.append)
        self._controls = Controls()
        self._is_open = False
        self._resetting = False
        self._draining = False
        self._moving = False  # another gateway is asked, without a pause
        self._not_before = -math.inf
        self._heard_at = -math.inf
        self._welcomed_at = -math.inf
        self._num_unreadable = 0
        self.leaving = False
        """whether the program closes the client"""
        self.error: WavserveError = NotReady(f"{', '.join(targets)}: no server answered yet")
        """why there is no stream"""
        self.stopped: WavserveError | None = None
        """why the client connects no more; None: it does"""

    # ------------------------------------------------------------------------------------------------ for the program

    def observe(self, observation: RobotObservation) -> int | None:
        """Puts an observation into the slot and returns its sequence number. It replaces one that was not sent yet.
        It waits there for as long as the server asks to be left alone, and is as old when it is sent.

        Returns None when it cannot be sent: no stream is open, the server stops, or a reset is under way.
        """
        with self._lock:
            if not self._is_open or self._draining or self._resetting:
                return None
            return self._observations.put(observation, self._session.epoch, self._clock())

    def report(self, report: ExecutionReport) -> None:
        """Queues a report. While nothing can be written, the oldest reports are lost."""
        with self._lock:
            if self._is_open:
                self._controls.put(report)

    def reset(self) -> None:
        """Forgets the frame memory. Chunks of before are dropped; `ResetAck` begins the new epoch."""
        with self._lock:
            self._observations.drop_slot(DropReason.RESET)
            if not self._is_open:
                self._session.give_up()
            elif not self._resetting:
                self._resetting = True
                self._controls.put(ResetStream(self._session.epoch))

    def poll(self) -> Event | None:
        """The oldest event that the program has not had; None: nothing happened."""
        with self._lock:
            return self._events.popleft() if self._events else None

    @property
    def is_waiting(self) -> bool:
        """As `RobotView.is_waiting`."""
        with self._lock:
            return self._observations.asked is not None or self._clock() < self._not_before

    @property
    def link(self) -> LinkState:
        """The link at this moment."""
        with self._lock:
            return LinkState(
                connected=self._is_open,
                session_id=self._session.id or "",
                epoch=self._session.epoch,
                silent_s=self._clock() - self._heard_at if self._is_open or self._moving else math.inf,
                link_timeout_s=self.options.link_timeout_s,
                num_unreadable=self._num_unreadable,
                resumed=self._session.resumed,
            )

    # ------------------------------------------------------------------------------------------------ for the network

    def hello(self, policy: PolicyInfo) -> Hello:
        """The first message of a stream. Raises ContractMismatch when the robot or the first policy was another."""
        with self._lock:
            return self._session.hello(policy)

    def opened(self, message: ServerMessage | None) -> Welcome:
        """Takes the server's first message and begins an epoch. Raises as `RobotSession.opened`."""
        with self._lock:
            welcome = self._session.opened(message)
            if welcome.resumed:
                self._observations.resumed(welcome.next_sequence)
            else:
                self._observations.forgotten()
            self._observations.begin_epoch(welcome.next_sequence)
            self._is_open, self._resetting, self._draining = True, False, False
            self._heard_at = self._welcomed_at = self._clock()
            self._events.append(welcome)
            return welcome

    def received(self, message: ServerMessage | None) -> None:
        """Takes a message of the server; None: one of a kind that this version does not know.

        Raises the server's error when it is fatal.
        """
        with self._lock:
            self._heard_at = self._clock()
            match message:
                case ActionChunk():
                    self._take_chunk(message)
                case ObservationDropped():
                    self._leave_alone(message.retry_after_ms)
                    self._observations.dropped(message)
                case StreamError():
                    self._take_error(message)
                case ResetAck():
                    self._session.was_reset(message.epoch)
                    self._observations.forgotten()
                    self._observations.begin_epoch(message.next_sequence)
                    self._resetting = False
                    self._events.append(message)
                case GoAway():
                    self._draining = True
                    self._observations.drop_slot(DropReason.DRAINING)
                    self._events.append(message)
                case Pong() | Welcome() | None:
                    pass

    def ping(self) -> None:
        """Queues a ping, unless one waits to be written."""
        with self._lock:
            now_ns = round(self._clock() * 1e9)
            self._controls.put(Ping(now_ns, now_ns))

    def leave(self) -> None:
        """Queues the last message of the stream. No other stream follows."""
        with self._lock:
            self.leaving = True
            self._observations.drop_slot(DropReason.RESET)
            self._controls.put(Bye("closed"))

    def next_control(self) -> ClientMessage | None:
        """The next message to write that is no observation."""
        with self._lock:
            return self._controls.take()

    def take(self) -> Waiting | None:
        """The observation to encode and write next. One whose deadline has passed in the slot is dropped."""
        with self._lock:
            waiting, now = self._observations.slot, self._clock()
            if waiting is None or now < self._not_before:
                return None
            deadline_ms = self.options.deadline_ms
            if deadline_ms is not None and (now - waiting.arrived_at) * 1e3 > deadline_ms:
                self._observations.drop_slot(DropReason.TOO_OLD)
                return None
            return self._observations.clear_slot()

    def encoded(self, waiting: Waiting, images: tuple[EncodedImage, ...]) -> ControlObservation | None:
        """The message of an observation; None when its epoch ended while it was encoded."""
        with self._lock:
            if waiting.epoch != self._session.epoch or self._resetting or not self._is_open:
                self._observations.dropped(waiting.dropped(DropReason.RESET))
                return None
            executed = self._observations.sent(waiting)
            self._session.instruction = waiting.observation.instruction or self._session.instruction
            sent_ns = round(self._clock() * 1e9)
            return observation_message(waiting, images, executed, self.options, sent_ns)

    def failed(self, waiting: Waiting, error: WavserveError) -> None:
        """An observation that cannot be encoded: an error of it, as if the server had refused it."""
        with self._lock:
            self._observations.refused(waiting.refused(error))

    @property
    def gateway(self) -> str:
        """The address of the stream that is open, or of the next attempt."""
        return self._search.target

    @property
    def is_silent(self) -> bool:
        """Whether an open stream has been silent for too long."""
        return self.link.silent_s > self.options.link_timeout_s

    def ended(self, error: WavserveError) -> float | None:
        """Notes that the stream ended or an attempt failed. The seconds until the next attempt; None: none follows."""
        with self._lock:
            lived_s = self._clock() - self._welcomed_at if self._is_open else 0.0
            self._num_unreadable += isinstance(error, InvalidAnswer)
            if self._resetting or isinstance(error, LOST_SESSION):
                self._session.give_up()  # a resumed session would keep the memory
            self._is_open, self._resetting, self._not_before = False, False, -math.inf
            self._controls.clear()
            self._observations.cut()
            self.error, pause_s = self._search.ended(error, lived_s, self._session.existed)
            self._moving = pause_s == 0.0 and not self.is_alone
            if pause_s is None:
                self.stopped = self.error
                self._events.append(Stopped(self.error))
            else:
                self._events.append(LinkDown(self.error, pause_s))
            return pause_s

    # -------------------------------------------------------------------------------------------------------- within

    def _take_chunk(self, chunk: ActionChunk) -> None:
        if chunk.epoch != self._session.epoch or self._resetting:
            self._observations.dropped(ObservationDropped(chunk.sequence, DropReason.RESET, epoch=chunk.epoch))
            return
        latency_s = self._clock() - chunk.captured_mono_ns / 1e9
        if chunk.captured_mono_ns and latency_s >= 0:
            self.latency.add(latency_s)
        self._observations.planned(chunk)

    def _take_error(self, message: StreamError) -> None:
        self._leave_alone(message.retry_after_ms)
        self._observations.refused(message)
        error = message.error()
        if message.fatal or (isinstance(error, NotReady) and not self.is_alone):  # another gateway may have models
            raise error

    def _leave_alone(self, for_ms: int) -> None:
        """Sends no observation for a while: the server asked for it."""
        if for_ms:
            self._not_before = self._clock() + for_ms / 1e3
