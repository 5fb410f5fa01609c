"""A simulated robot: looks, asks, executes a chunk at its control rate, asks again before it runs out.

Started by the run, one task a robot. It believes what it is told: a refusal is asked again after the told time, with
what the cameras see then; a missed deadline at once. Time and wire are handed in, so that tests have their own.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from loadtest.robots.answers import Reply, faults
from loadtest.robots.chunks import Playback, Stall
from loadtest.robots.frames import Frames
from loadtest.robots.journal import Ask, Journal, RobotStall
from loadtest.robots.scenario import RobotGroup
from loadtest.robots.turns import Turns
from loadtest.robots.wires import Lost, Wire
from wavserve.core.errors import DeadlineExceeded, Overloaded, UnknownSession, WavserveError
from wavserve.core.messages import Observation

AFTER_FAILURE_S = 0.5
"""How long a robot waits when something else than load went wrong."""
MIN_RETRY_S = 0.01


class Clock(Protocol):
    """Seconds, and waiting for them."""

    def now(self) -> float: ...

    async def sleep_until(self, when: float) -> None: ...


class WallClock:
    """The machine's monotonic clock."""

    def now(self) -> float:
        return time.monotonic()

    async def sleep_until(self, when: float) -> None:
        await asyncio.sleep(max(when - time.monotonic(), 0.0))


@dataclass(frozen=True, slots=True)
class Identity:
    """Which robot it is, and how it behaves."""

    name: str
    group_name: str
    group: RobotGroup
    seed: int


@dataclass(frozen=True, slots=True)
class Shift:
    """What a robot is told of one phase: until when it asks, by which turns, over which wire, how urgently."""

    phase: str
    until: float
    turns: Turns
    wire: Wire
    deadline_ms: int | None = None


class Robot:
    """One robot with a session of its own, which it keeps from phase to phase."""

    def __init__(self, identity: Identity, frames: Frames, journal: Journal, clock: Clock) -> None:
        self._is = identity
        self._frames = frames
        self._journal = journal
        self._clock = clock
        self._random = random.Random(identity.seed)
        self._playback = Playback.of(identity.group)
        self._session: str | None = None
        self._sequence = 0
        self._accepted_step = 0
        """control step of the last observation that was answered"""
        self._wants = False
        """an ask was made and no chunk has come for it yet"""

    async def work(self, shift: Shift) -> None:
        """Asks and executes until the shift's end; a plan under way then is waited for."""
        ready = self._clock.now()
        self._playback.rest(ready)
        self._wants = False
        while True:
            await self._clock.sleep_until(min(ready + self._pause(), shift.until))
            over = self._clock.now() >= shift.until or not await shift.turns.take()
            if shift.turns.told and not self._wants:
                self._playback.last_until(self._clock.now())
            if over:
                break
            self._wants = True
            ask = await self._ask(shift)
            self._journal.asks.append(ask)
            ready = self._after(ask)
        self._note(shift.phase, self._playback.stall(min(self._clock.now(), shift.until)))

    def _note(self, phase: str, stall: Stall | None) -> None:
        if stall is not None:
            self._journal.stalls.append(RobotStall(phase, self._is.group_name, self._is.name, stall))

    def _pause(self) -> float:
        return self._is.group.think_s + self._random.random() * self._is.group.jitter_s

    def _after(self, ask: Ask) -> float:
        """When the robot is ready to ask again."""
        match ask.outcome:
            case "answered":
                self._wants = False
                self._note(ask.phase, self._playback.begin(ask.ended))
                return self._playback.ask_at
            case "refused":
                told_s = (ask.retry_after_s or 0.0) if self._is.group.heeds_retry else 0.0
                return ask.ended + max(told_s, MIN_RETRY_S)
            case "missed":
                return ask.ended
            case _:
                return ask.ended + AFTER_FAILURE_S

    def _look(self, deadline_ms: int | None) -> Observation:
        step = self._playback.step(self._clock.now())
        seen = self._frames.at(self._sequence)
        options: Mapping[str, object] = dict(self._is.group.planner)
        sent = replace(
            seen,
            session_id=self._session,
            sequence=self._sequence,
            control_step=step,
            executed_steps=step - self._accepted_step if self._session else 0,
            options=options,
            seed=self._is.seed,
            deadline_ms=deadline_ms,
        )
        self._sequence += 1
        return sent

    async def _ask(self, shift: Shift) -> Ask:
        sent = self._look(shift.deadline_ms)
        self._journal.under_way += 1
        began = self._clock.now()
        ask = Ask(shift.phase, self._is.group_name, self._is.name, sent.sequence, began, began, "lost")
        ask = replace(ask, deadline_s=None if sent.deadline_ms is None else sent.deadline_ms / 1e3)
        try:
            reply = await shift.wire.ask(sent)
            return self._accepted(ask, sent, reply)
        except Overloaded as error:
            return self._ended(ask, "refused", error.message, error.retry_after_s)
        except DeadlineExceeded as error:
            return self._ended(ask, "missed", error.message)
        except UnknownSession as error:
            self._session = None  # it was dropped: the next observation opens another
            return self._ended(ask, "failed", error.message)
        except WavserveError as error:
            return self._ended(ask, "failed", f"{type(error).__name__}: {error.message}")
        except Lost as error:
            return self._ended(ask, "lost", str(error))
        finally:
            self._journal.under_way -= 1

    def _accepted(self, ask: Ask, sent: Observation, reply: Reply) -> Ask:
        ended = self._ended(ask, "answered", "")
        wrong = tuple(faults(sent, reply, ended.seconds, self._is.group.needed_steps))
        self._session, self._accepted_step = reply.session_id, sent.control_step
        return replace(ended, reply=reply, faults=wrong)

    def _ended(self, ask: Ask, outcome: str, words: str, retry_after_s: float | None = None) -> Ask:
        return replace(ask, ended=self._clock.now(), outcome=outcome, words=words, retry_after_s=retry_after_s)
