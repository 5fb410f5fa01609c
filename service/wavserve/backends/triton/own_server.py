"""A server that is our child, seen from its supervisor: it is restarted when it stands still, also during a load.

A server that stands still answers nothing, so whatever it was asked would wait forever. Knows the server and its
models, and nothing of which model needs a repair.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from wavserve.backends.triton.client import TritonBackend
from wavserve.backends.triton.server import TritonServer
from wavserve.core.errors import ModelDown
from wavserve.core.verbs import MODELS
from wavserve.system.stalls import RunTime, answered_within

log = logging.getLogger(__name__)

LIVE_WITHIN_S = 1.5
"""A server that does not answer for so long stands still."""
LIVE_DURING_LOAD_WITHIN_S = 5.0
"""The same while models are loaded, which takes all cores."""
UNLOAD_WITHIN_S = 5.0
"""Unloading a model whose process is dead takes a moment."""
ASK_EVERY_S = 1.0


class OwnServer:
    """Starts, asks and restarts a server. `load_s` bounds a load; `hang_s` is the longest silence of anything."""

    def __init__(self, server: TritonServer, backend: TritonBackend, load_s: float, hang_s: float) -> None:
        self._server, self._backend = server, backend
        self._load_s, self._hang_s = load_s, hang_s
        self._serves = False
        """whether it was started, and was not told to end since"""

    async def start(self) -> None:
        """Starts the server, connects to it and loads all its models. Raises what a load and a start raise."""
        await self._backend.reconnect(await self._server.start())
        self._serves = True
        await self.load(MODELS)

    async def ended(self) -> int:
        """Waits until the server exits, and returns its exit code."""
        code = await self._server.wait()
        self._serves = False
        return code

    async def check_live(self, within_s: float = LIVE_WITHIN_S) -> bool:
        """Whether the server answers. One that does not is restarted, with all its models."""
        if not self._serves or not self._server.running:
            return False
        asking = asyncio.create_task(self._backend.is_live(self._hang_s))
        try:
            if await self._answers(asking, within_s) and asking.result():
                return True
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        self.restart("tritonserver does not answer")
        return False

    def restart(self, why: str) -> None:
        """Kills the server, whose supervisor starts it again. The log says it once."""
        if self._serves:
            log.error("%s: restarting it", why)
            self.kill()

    def kill(self) -> None:
        self._serves = False
        self._server.kill()

    async def load(self, models: Sequence[str]) -> None:
        """Loads models side by side, as long as the server answers and no model's process dies.

        Triton would go on loading a model whose process died. Raises the error of one, and ModelDown.
        """
        loads = asyncio.gather(*(self._backend.load(model, self._load_s) for model in models))
        ends = [asyncio.create_task(self._server.child_death()), asyncio.create_task(self._silence())]
        every: list[asyncio.Future[Any]] = [loads, *ends]
        try:
            await asyncio.wait(every, return_when=asyncio.FIRST_COMPLETED)
            if not loads.done():
                raise ModelDown(next(end.result() for end in ends if end.done()))
            await loads
        finally:
            for each in every:
                each.cancel()
            await asyncio.gather(*every, return_exceptions=True)

    async def unload(self, model: str) -> None:
        """Unloads a model whose process is dead. Raises ModelDown, and restarts the server, when that takes long."""
        unloading = asyncio.create_task(self._backend.unload(model, self._load_s))
        try:
            if not await self._answers(unloading, UNLOAD_WITHIN_S):
                self.restart(f"tritonserver does not unload {model}")
                raise ModelDown(f"{model}: the server did not unload it")
            await unloading
        finally:
            unloading.cancel()
            await asyncio.gather(unloading, return_exceptions=True)

    def remove_unused(self) -> None:
        """Removes what dead processes of models left in shared memory."""
        self._server.remove_unused()

    async def stop(self) -> None:
        self._serves = False
        await self._server.stop()

    async def _answers(self, asking: asyncio.Future[Any], within_s: float) -> bool:
        """Whether the server answers before it could run for so long."""
        return await answered_within(asking, min(within_s, self._hang_s), RunTime(self._server.process).of)

    async def _silence(self) -> str:
        """Waits until the server does not answer; returns what to say."""
        while await self.check_live(LIVE_DURING_LOAD_WITHIN_S):  # noqa: ASYNC110 - nothing tells of silence
            await asyncio.sleep(ASK_EVERY_S)
        return f"tritonserver does not answer while models are loaded: {self._server.tail()}"
