"""Both clients behind one blocking interface, so that a test states once what holds for both."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, Protocol

from wavserve.clients.async_client import AsyncPlanClient
from wavserve.clients.plan_client import PlanClient
from wavserve.core.messages import ActionChunk, Observation


class Robot(Protocol):
    def plan(self, observation: Observation, timeout_s: float | None = None) -> ActionChunk: ...
    def reset(self, session_id: str, timeout_s: float | None = None) -> None: ...
    def close(self) -> None: ...


class AwaitingRobot:
    """`AsyncPlanClient` on an event loop in a thread of its own."""

    def __init__(self, target: str, **options: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        try:
            self._client: AsyncPlanClient = self._run(self._make(target, options))
        except BaseException:
            self.end()
            raise

    def plan(self, observation: Observation, timeout_s: float | None = None) -> ActionChunk:
        chunk: ActionChunk = self._run(self._client.plan(observation, timeout_s))
        return chunk

    def reset(self, session_id: str, timeout_s: float | None = None) -> None:
        self._run(self._client.reset(session_id, timeout_s))

    def close(self) -> None:
        self._run(self._client.close())

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(120)

    @staticmethod
    async def _make(target: str, options: dict[str, Any]) -> AsyncPlanClient:
        return AsyncPlanClient(target, **options)


class BlockingRobot(PlanClient):
    def end(self) -> None:
        """Does nothing: this robot has no thread."""


KINDS = (BlockingRobot, AwaitingRobot)
