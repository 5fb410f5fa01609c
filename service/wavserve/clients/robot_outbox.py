"""What is written to a stream: observations as messages, and the queue of the others. Knows no link.

The queue is not thread-safe.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import numpy as np

from wavserve.clients.robot import RobotObservation, RobotOptions
from wavserve.clients.robot_observations import Waiting
from wavserve.core.control import ClientMessage, ControlObservation, ExecutionReport, Ping
from wavserve.core.messages import EncodedImage
from wavserve.core.rtc import RtcRequest

_MAX_REPORTS = 16
"""Reports that wait while nothing can be written. The oldest one beyond them is lost."""


class Controls:
    """A queue with one ping and few reports, so that it stays short on a stream that stands still."""

    def __init__(self) -> None:
        self._messages: deque[ClientMessage] = deque()

    def put(self, message: ClientMessage) -> None:
        """Adds a message. A second ping is not added."""
        same = [each for each in self._messages if type(each) is type(message)]
        if isinstance(message, Ping) and same:
            return
        if isinstance(message, ExecutionReport) and len(same) >= _MAX_REPORTS:
            self._messages.remove(same[0])
        self._messages.append(message)

    def take(self) -> ClientMessage | None:
        """Takes the oldest message out."""
        return self._messages.popleft() if self._messages else None

    def clear(self) -> None:
        """The stream has ended: nothing of it is written any more."""
        self._messages.clear()


def observation_message(
    waiting: Waiting, images: tuple[EncodedImage, ...], executed_steps: int, options: RobotOptions, sent_ns: int
) -> ControlObservation:
    """An observation as it is written. `executed_steps`: since the one that the memory has."""
    seen = waiting.observation
    return ControlObservation(
        images=images,
        state=seen.state,
        instruction=seen.instruction,
        sequence=waiting.sequence,
        epoch=waiting.epoch,
        control_step=seen.control_step,
        executed_steps=executed_steps,
        options=options.planner,
        deadline_ms=options.deadline_ms,
        seed=seen.seed,
        rtc=_rtc(seen, executed_steps, options.rtc),
        sent_mono_ns=sent_ns,
        traceparent=waiting.span.traceparent,
    )


def _rtc(seen: RobotObservation, executed: int, wish: RtcRequest | None) -> RtcRequest | None:
    """The server takes no delay above what is left, or above what was executed since the previous observation."""
    if seen.left_over is None:
        return wish
    rows = np.asarray(seen.left_over, np.float32)
    delay = min(seen.inference_delay, len(rows), executed)
    return replace(wish or RtcRequest(), inference_delay=delay, prev_chunk_left_over=rows)
