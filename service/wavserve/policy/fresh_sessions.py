"""What robots get while the shared session store does not answer: plans without frame memory.

Their sessions are kept in this process. When the store answers again, each goes on there from what this process kept,
unless another gateway has committed to it meanwhile. Knows no Redis.
"""

from __future__ import annotations

import math
from dataclasses import replace

from wavserve.core.errors import StoreUnavailable
from wavserve.policy.sessions import CommitResult, MemorySessions, Session, SessionStore

_APART = 2**40
"""Added to the versions of sessions that were loaded here, so that no commit of them fits a version in the store."""


class FreshWhenDown:
    """A shared store, and sessions of this process in its place while it is down."""

    def __init__(self, shared: SessionStore, local: MemorySessions) -> None:
        self._shared = shared
        self._local = local

    async def load(self, session_id: str) -> Session | None:
        """While the store is down, an unknown session is a new one, of no policy: nobody can tell the two apart."""
        kept = await self._local.load(session_id)
        try:
            stored = await self._shared.load(session_id)
        except StoreUnavailable:
            session = kept or Session(session_id, "")
            return replace(session, version=session.version + _APART)
        if kept is None:
            return stored
        if stored is not None and stored.committed_s >= kept.committed_s:  # another gateway went on with it
            await self._local.end(session_id)
            return stored
        if stored is None:
            return replace(kept, version=0)
        return replace(kept, version=stored.version, epoch=stored.epoch)

    async def peek(self, session_id: str) -> Session | None:
        """The one that was committed last, here or there. An onlooker decides nothing about the two."""
        kept = await self._local.peek(session_id)
        try:
            stored = await self._shared.peek(session_id)
        except StoreUnavailable:
            return kept
        is_newer = stored is not None and (kept is None or stored.committed_s >= kept.committed_s)
        return stored if is_newer else kept

    async def commit(self, session: Session, deadline: float = math.inf) -> CommitResult:
        if session.version >= _APART:
            return await self._local.commit(replace(session, version=session.version - _APART), deadline)
        result = await self._shared.commit(session, deadline)
        if result is CommitResult.COMMITTED:
            await self._local.end(session.id)
        elif result is CommitResult.UNKNOWN and session.version == 0 and await self._local.load(session.id) is None:
            return await self._local.commit(session, deadline)  # it is new: no other gateway knows its id
        return result

    async def ensure_room(self, robot_id: str = "") -> None:
        try:
            await self._shared.ensure_room(robot_id)
        except StoreUnavailable:
            await self._local.ensure_room(robot_id)

    async def end(self, session_id: str) -> None:
        await self._local.end(session_id)
        await self._shared.end(session_id)
