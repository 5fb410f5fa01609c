"""What robots get while the shared session store does not answer: sessions of this process, which begin without memory.

A robot's stream goes on in its epoch: of the streams here the epoch is remembered, and the memory is not, because
another gateway may have gone on meanwhile. When the store answers again, each session goes on there from what this
process kept, unless another gateway has committed to it later. Knows no Redis.
"""

from __future__ import annotations

import contextlib
import math
from collections import OrderedDict
from dataclasses import replace

from wavserve.core.errors import Overloaded, StoreUnavailable
from wavserve.policy.sessions import CommitResult, MemorySessions, Session, SessionStore

_APART = 2**40
"""Added to the versions of sessions that were loaded here, so that no commit of them fits a version in the store."""

MAX_STREAMS = 4096
"""Sessions of streams that are remembered, the latest: more than a gateway has robots."""


class FreshWhenDown:
    """A shared store, and sessions of this process in its place while it is down."""

    def __init__(self, shared: SessionStore, local: MemorySessions, max_streams: int = MAX_STREAMS) -> None:
        self._shared = shared
        self._local = local
        self._max_streams = max_streams
        self._streams: OrderedDict[str, Session] = OrderedDict()  # as they would begin here

    async def load(self, session_id: str) -> Session | None:
        """While the store is down, an unknown session is a new one, of no policy: nobody can tell the two apart."""
        kept = await self._local.load(session_id)
        try:
            stored = await self._shared.load(session_id)
        except StoreUnavailable:
            session = kept or self._streams.get(session_id) or Session(session_id, "")
            return replace(session, version=session.version + _APART)
        self._remember(stored)
        if kept is None:
            return stored
        if stored is not None and stored.committed_s >= kept.committed_s:  # another gateway went on with it
            await self._local.end(session_id)
            return stored
        if stored is None:
            return replace(kept, version=0)
        return replace(kept, version=stored.version, epoch=max(stored.epoch, kept.epoch))

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
            self._remember(session)
            await self._local.end(session.id)
        return await self._commit_here(session, deadline) if result is CommitResult.UNKNOWN else result

    async def ensure_room(self, robot_id: str = "") -> None:
        try:
            await self._shared.ensure_room(robot_id)
        except StoreUnavailable:
            await self._local.ensure_room(robot_id)

    async def ensure_writable(self) -> None:
        with contextlib.suppress(StoreUnavailable):
            await self._shared.ensure_writable()

    async def _commit_here(self, session: Session, deadline: float) -> CommitResult:
        """Goes on from a session of which the store did not say whether it has it. If it has, both are the same."""
        kept = await self._local.load(session.id)
        if kept is not None and (kept.epoch, kept.last_sequence) > (session.epoch, session.last_sequence):
            return CommitResult.CHANGED
        try:
            result = await self._local.commit(replace(session, version=kept.version if kept else 0), deadline)
        except Overloaded:
            return CommitResult.UNKNOWN
        return CommitResult.UNKNOWN if result is CommitResult.TOO_LATE else result

    def _remember(self, session: Session | None) -> None:
        """Notes the epoch and the sequence of a stream's session, if this is one."""
        if session is None or not session.epoch:
            return
        self._streams[session.id] = replace(session.forget(), version=0)
        self._streams.move_to_end(session.id)
        if len(self._streams) > self._max_streams:
            self._streams.popitem(last=False)

    async def end(self, session_id: str) -> None:
        self._streams.pop(session_id, None)
        await self._local.end(session_id)
        await self._shared.end(session_id)
