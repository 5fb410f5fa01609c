"""The messages that wait to be written to one robot. It is bounded: the stream of a robot that does not read ends.

Knows no gRPC: `write` is a coroutine that ends when the message has left.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from wavserve.core.control import ServerMessage
from wavserve.core.errors import Overloaded
from wavserve.core.messages import ActionChunk
from wavserve.wire.control_answers import server_message

MAX_UNREAD_CHUNKS = 2
"""With so many chunks unread no further plan begins."""
MAX_MESSAGES = 256
"""Messages that may wait: chunks, drops, errors and answers to pings."""
STALL_S = 1.0
"""A write that takes longer, while the most chunks are unread, ends the stream."""


class Outbox:
    """Writes messages in their order, one at a time."""

    def __init__(self, write: Callable[[bytes], Awaitable[object]], stall_s: float = STALL_S) -> None:
        self._write = write
        self._stall_s = stall_s
        self._messages: deque[ServerMessage] = deque()
        self._unread = 0  # chunks that wait or are being written
        self._writing: asyncio.Timeout | None = None  # of the message that is being written
        self._closed = False
        self._changed = asyncio.Event()

    def put(self, message: ServerMessage) -> None:
        """Adds a message. Raises Overloaded when too many wait."""
        if len(self._messages) >= MAX_MESSAGES:
            raise Overloaded(f"the client does not read its stream: {MAX_MESSAGES} messages wait")
        self._messages.append(message)
        self._changed.set()
        if isinstance(message, ActionChunk):
            self._unread += 1
            self._limit_write()

    def close(self) -> None:
        """`write_all` ends once everything is written."""
        self._closed = True
        self._changed.set()

    async def has_room(self) -> None:
        """Waits until another chunk may be made."""
        while self._is_full:
            await self._change()

    async def has_space(self) -> None:
        """Waits while half of the messages wait that may. Raises Overloaded when none of them leaves for `stall_s`."""
        while len(self._messages) >= MAX_MESSAGES // 2:
            try:
                async with asyncio.timeout(self._stall_s):
                    await self._change()
            except TimeoutError:
                problem = f"{len(self._messages)} messages were unread for {self._stall_s:g} s"
                raise Overloaded(f"the client does not read its stream: {problem}") from None

    async def write_all(self) -> None:
        """Writes until `close`. Raises Overloaded when the client does not read, and what `write` raises."""
        while self._messages or not self._closed:
            if not self._messages:
                await self._change()
                continue
            message = self._messages.popleft()
            await self._write_one(server_message(message).SerializeToString())
            self._unread -= isinstance(message, ActionChunk)
            self._changed.set()

    async def _write_one(self, raw: bytes) -> None:
        """Writes in this task: a task and a timer for each message would cost more than the message."""
        try:
            async with asyncio.timeout(self._stall_s if self._is_full else None) as self._writing:
                await self._write(raw)
        except TimeoutError:
            problem = f"{self._unread} chunks were unread for {self._stall_s:g} s"
            raise Overloaded(f"the client does not read its stream: {problem}") from None
        finally:
            self._writing = None

    @property
    def _is_full(self) -> bool:
        """Whether the most chunks are unread."""
        return self._unread >= MAX_UNREAD_CHUNKS

    def _limit_write(self) -> None:
        """From now on the write under way may take `stall_s`, when the most chunks are unread."""
        if self._is_full and self._writing is not None and self._writing.when() is None:
            self._writing.reschedule(asyncio.get_running_loop().time() + self._stall_s)

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()
