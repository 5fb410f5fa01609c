"""A robot that sends each observation as a request of its own.

While it does not know whether a request was planned, it sends the same one again, to any gateway. So its accepted
observations are the ones that its session remembers, and a lone robot that sends them gets the same plans.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

from loadtest.failover.fleet import ANSWER_TIMEOUT_S, OPTIONS, STEPS, Answer, Logbook, Role
from loadtest.robots.frames import Frames
from wavserve.clients.async_client import AsyncPlanClient
from wavserve.clients.gateways import is_unanswered
from wavserve.core.errors import (
    DeadlineExceeded,
    OutcomeUnknown,
    Overloaded,
    UnknownSession,
    WavserveError,
)
from wavserve.core.messages import ActionChunk, Observation

RETRY_S = 0.05


class UnaryRobot:
    """One robot with its own session and its own client."""

    def __init__(self, role: Role, client: AsyncPlanClient, frames: Frames, logbook: Logbook) -> None:
        self._role = role
        self._client = client
        self._frames = frames
        self._logbook = logbook
        self._number = 0  # of the next request
        self._session = 0
        self._session_id: str | None = None
        self._accepted_step = 0

    async def turn(self, phase: str) -> None:
        """One observation, planned or refused."""
        sent = self._observe()
        request = self._logbook.asked(self._role, phase, self._number)
        self._number += 1
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                chunk, first_attempt = await self._ask(sent)
        except TimeoutError:
            self._logbook.ended(request, "lost", f"no answer within {ANSWER_TIMEOUT_S:.0f} s")
        except UnknownSession as error:  # Redis lost it
            self._session_id, self._session = None, self._session + 1
            self._logbook.failed(request, error)
        except WavserveError as error:
            self._logbook.failed(request, error)
        else:
            self._session_id, self._accepted_step = chunk.session_id, sent.control_step
            answer = Answer(self._role, self._session, sent, chunk, time.monotonic())
            self._logbook.answered(request, answer, sent, first_attempt)

    async def close(self) -> None:
        await self._client.close()

    def _observe(self) -> Observation:
        step = STEPS * self._number
        return replace(
            self._frames.at(self._number),
            session_id=self._session_id,
            sequence=self._number,
            control_step=step,
            executed_steps=step - self._accepted_step if self._session_id else 0,
            options=dict(OPTIONS),
            seed=self._role.seed,
            deadline_ms=self._role.deadline_ms,
        )

    async def _ask(self, sent: Observation) -> tuple[ActionChunk, bool]:
        """The answer, and whether it came at the first attempt. Raises errors after which nothing was planned.

        The client itself asks the next gateway after one that did not answer. That is another attempt.
        """
        unknown = False
        while True:
            gateway = self._client.gateway
            try:
                chunk = await self._client.plan(sent)
                return chunk, not unknown and self._client.gateway == gateway
            except WavserveError as error:
                unknown = unknown or outcome_unknown(error)
                if not unknown or (final(error) and not outcome_unknown(error)):
                    raise
                await asyncio.sleep(error.retry_after_s if isinstance(error, Overloaded) else RETRY_S)


def outcome_unknown(error: WavserveError) -> bool:
    """Whether the request may have been planned all the same: no server says otherwise."""
    return is_unanswered(error) or isinstance(error, OutcomeUnknown)


def final(error: WavserveError) -> bool:
    """Whether a retry of the same request cannot succeed."""
    return not error.retryable and not isinstance(error, DeadlineExceeded)
