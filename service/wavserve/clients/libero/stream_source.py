"""Plans over a robot's stream, by the same client that a robot uses. An episode has a stream of its own."""

from __future__ import annotations

import queue
import time

from wavserve.clients.gateways import Targets
from wavserve.clients.libero.plan_source import EpisodePlan, SourceConfig, given_orientations
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
from wavserve.core.control import GoAway, ObservationDropped, StreamError, Welcome
from wavserve.core.errors import NotReady
from wavserve.core.messages import ActionChunk, PolicyInfo
from wavserve.core.rtc import RtcRequest

_LINK_TIMEOUT_S = 15.0
"""As long as a request without a deadline: no motor waits for these answers."""
_ANSWER_TIMEOUT_S = 600.0
"""A service that lives answers an observation; a plan of a large policy takes minutes on a processor."""


class StreamSource:
    """A source over `Control`. An interrupted stream ends the episode: its steps may have been lost.

    Of several gateways another one may go on with the session, between two plans. A plan that was being made is not
    asked for again: its observation would have another number, and with it another noise than in an undisturbed run.
    """

    def __init__(
        self,
        target: Targets,
        robot_id: str,
        policy: PolicyInfo,
        config: SourceConfig,
        answer_timeout_s: float = _ANSWER_TIMEOUT_S,
    ) -> None:
        """`target`: `host:port`, several with commas. `robot_id`: of no other source.

        Connects when an episode begins.
        """
        self._target, self._policy, self._answer_timeout_s = target, policy, answer_timeout_s
        orientations = given_orientations(policy.cameras, config.rotation)
        self._robot = RobotDescription.as_declared(policy, robot_id, orientations)
        self._options = RobotOptions(
            policy_digest=policy.digest,
            jpeg_quality=config.jpeg_quality,
            planner=config.options,
            rtc=RtcRequest(mode=config.rtc_mode),
            link_timeout_s=_LINK_TIMEOUT_S,
            tracer=config.tracer,
        )
        self._client: RobotClient | None = None

    def begin(self, instruction: str) -> None:
        """As `PlanSource.begin`. Raises ContractMismatch when the service has another policy by now."""
        self.close()
        self._instruction, self._executed_steps = instruction, 0
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._client = RobotClient(self._target, self._robot, self._options, self._events.put)
        self._client.connect()
        until = self._until()
        while not isinstance(self._next(until), Welcome):
            pass

    def plan(self, request: EpisodePlan) -> ActionChunk:
        """As `PlanSource.plan`. Raises NotReady when the stream goes to another gateway while the plan is made."""
        assert self._client is not None, "begin comes first"
        executed_steps = self._executed_steps + request.executed_steps
        observation = self._observation(request, executed_steps)
        until = self._until()
        while not self._events.empty():
            self._moves(self._events.get())
        while (sequence := self._client.observe(observation)) is None:
            self._wait_for_session(until)
        chunk = self._answer(sequence, until)
        self._executed_steps = executed_steps
        return chunk

    def _observation(self, request: EpisodePlan, executed_steps: int) -> RobotObservation:
        rtc = request.rtc
        return RobotObservation(
            images=request.images,
            state=tuple(request.state.tolist()),
            control_step=request.control_step,
            executed_steps=executed_steps,
            instruction=self._instruction,
            seed=request.seed,
            left_over=None if rtc is None else rtc.prev_chunk_left_over,
            inference_delay=0 if rtc is None else rtc.inference_delay,
        )

    def _answer(self, sequence: int, until: float) -> ActionChunk:
        """The chunk of an observation."""
        while True:
            event = self._next(until)
            if isinstance(event, ActionChunk) and event.sequence == sequence:
                return event
            if self._moves(event):
                raise NotReady(f"{self._target}: the stream goes to another gateway, and a plan was being made")

    def _wait_for_session(self, until: float) -> None:
        """Until another gateway goes on with the session. Raises NotReady when none does."""
        assert self._client is not None
        if self._client.is_alone:
            raise NotReady(f"{self._target}: the stream is not open")
        while True:
            event = self._next(until)
            self._moves(event)
            if isinstance(event, Welcome):
                return

    def _moves(self, event: Event) -> bool:
        """Whether the stream goes to another gateway now. Raises what ends an episode."""
        assert self._client is not None
        if isinstance(event, LinkDown) and event.moves:
            return True
        if self._client.is_alone or not is_of_handover(event):
            _raise_if_over(event)
        return False

    def _until(self) -> float:
        return time.monotonic() + self._answer_timeout_s

    def _next(self, until: float) -> Event:
        """The next event. Raises NotReady when none comes until then (monotonic, s)."""
        try:
            return self._events.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            raise NotReady(f"{self._target}: no answer on the stream within {self._answer_timeout_s:g} s") from None

    def policy(self) -> PolicyInfo:
        """As `PlanSource.policy`."""
        return self._policy

    def close(self) -> None:
        """As `PlanSource.close`."""
        if self._client is not None:
            self._client.close()
            self._client = None


def _raise_if_over(event: Event) -> None:
    """Raises what ends an episode: any failure of its stream or of its observation."""
    match event:
        case LinkDown() | Stopped():
            raise event.error
        case StreamError():
            raise event.error()
        case ObservationDropped():
            raise NotReady(f"the service dropped the observation: {event.reason.value}")
        case GoAway():
            raise NotReady(f"the service stops: {event.reason}")
        case Welcome():
            raise NotReady("the stream was interrupted")
