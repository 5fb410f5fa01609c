"""The commit of a plan: what it stores, how long it may take, and how a caller is kept from interrupting it.

Knows sessions and no plan that runs.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, TypeVar

from wavserve.core.errors import WavserveError
from wavserve.core.messages import ActionChunk
from wavserve.core.types import Clock
from wavserve.policy.execution import Outcome
from wavserve.policy.inflight import ResolvedRequest
from wavserve.policy.sessions import CommitResult, LastPlan, Session, SessionStore

T = TypeVar("T")

log = logging.getLogger(__name__)

COMMIT_S = 2.0
"""How long a commit may take. Later its outcome is unknown."""


def advanced(session: Session, resolved: ResolvedRequest, chunk: ActionChunk, outcome: Outcome) -> Session:
    """The session once its plan is committed."""
    kept = replace(chunk, imagined={}) if chunk.imagined else chunk  # frames are large: a retry gets the actions alone
    last = LastPlan(
        instruction=resolved.inputs["instruction"],
        control_step=resolved.request.control_step,
        video=outcome.plan.video,
        value=outcome.plan.value,
        content=resolved.content,
        actions=chunk.actions,
        chunk=kept,
    )
    return replace(session, memory=outcome.memory, last=last, last_sequence=resolved.request.sequence)


async def commit(store: SessionStore, session: Session, deadline: float, unix_clock: Clock = time.time) -> CommitResult:
    """Commits a session and notes the time.

    Its task must not be cancelled: a commit that is broken off could be stored or not.
    Raises Overloaded, as the store does. Any other failure of the store leaves the outcome unknown.
    """
    try:
        async with asyncio.timeout(COMMIT_S):
            return await store.commit(replace(session, committed_s=unix_clock()), deadline)
    except WavserveError:
        raise
    except Exception as error:
        log.error("whether a session was stored is not known", exc_info=error)
        return CommitResult.UNKNOWN


async def uninterrupted(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which runs to its end however often the caller is cancelled meanwhile.

    A caller that was cancelled is so once the work has ended.
    """
    task, cancelled = asyncio.create_task(work), None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        task.exception()  # nobody else asks for it
        raise cancelled
    return task.result()
