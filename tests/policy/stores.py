"""A session store whose commits wait, fail or lose their answer when a test says so."""

from __future__ import annotations

import asyncio
import math

from wavserve.policy.sessions import CommitResult, MemorySessions, Session


class RemoteStore:
    """A store behind a network. `arrive` is awaited before a commit reaches the sessions, `answer` after it.

    The default of both is to be at once. Each may wait, move a clock or raise.
    """

    def __init__(self, sessions: MemorySessions) -> None:
        self.sessions = sessions
        self.began = asyncio.Event()
        """set when a commit begins"""

    async def arrive(self) -> None:
        pass

    async def answer(self) -> None:
        pass

    async def load(self, session_id: str) -> Session | None:
        return await self.sessions.load(session_id)

    async def peek(self, session_id: str) -> Session | None:
        return await self.sessions.peek(session_id)

    async def ensure_room(self, robot_id: str = "") -> None:
        await self.sessions.ensure_room(robot_id)

    async def ensure_writable(self) -> None:
        pass

    async def end(self, session_id: str) -> None:
        await self.sessions.end(session_id)

    async def commit(self, session: Session, deadline: float = math.inf) -> CommitResult:
        self.began.set()
        await self.arrive()
        result = await self.sessions.commit(session, deadline)
        await self.answer()
        return result
