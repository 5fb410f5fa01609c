"""The models in this process: runners run in worker threads, never on the event loop.

As many calls run at a time as there are workers, so several threads may call a runner at once. A thread cannot be
ended: a call that hangs in a driver ends with the process.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import torch

from wavserve.core.errors import BackendError
from wavserve.core.types import Tensors
from wavserve.core.verbs import VERBS
from wavserve.models.runners.calls import CancelCheck, Runner
from wavserve.system.stalls import TICK_S, AwakeTime


class LocalBackend:
    """`run` gives a call to the runner of its model as soon as one of `workers` threads is free.

    `on_change` is called when a call stands still and when the last such call has ended.
    """

    def __init__(
        self, runners: Mapping[str, Runner], workers: int = 1, on_change: Callable[[], None] = lambda: None
    ) -> None:
        self._runners = runners
        self._on_change = on_change
        self._calls: dict[asyncio.Future[Tensors], str] = {}
        """the model of each call that a thread has or will have, also of those that nobody waits for any more"""
        self._stuck: set[asyncio.Future[Tensors]] = set()
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="models")

    async def run(self, verb: str, inputs: Tensors, deadline: float = math.inf) -> Tensors:
        """The outputs of one call. Raises what the runner raises. A call that is cancelled while it runs stops soon."""
        cancelled = threading.Event()
        call = asyncio.get_running_loop().run_in_executor(self._threads, self._call, verb, inputs, cancelled.is_set)
        self._calls[call] = VERBS[verb].model
        call.add_done_callback(self._ended)
        try:
            return await asyncio.shield(call)
        except asyncio.CancelledError:
            cancelled.set()
            if call.done() and not call.exception():
                return call.result()  # it is complete, and its arena slots have an owner only if the caller gets it
            call.add_done_callback(lambda late: late.exception())  # no caller is left for the error
            raise

    @property
    def up(self) -> bool:
        """Whether no call stands still."""
        return not self._stuck

    def on_stuck(self, model: str) -> None:
        """A call of this model stands still. Its calls count as stuck until they end."""
        self._stuck |= {call for call, called in self._calls.items() if called == model}
        self._on_change()

    async def watch(self, hang_s: float) -> None:
        """Waits until calls have been stuck for `hang_s` without a pause, and raises BackendError then."""
        stuck_s, awake = 0.0, AwakeTime(asyncio.get_running_loop().time)
        while stuck_s <= hang_s:
            await asyncio.sleep(TICK_S)
            seconds = awake.tick()
            stuck_s = 0.0 if self.up else stuck_s + seconds
        models = ", ".join(sorted({self._calls[call] for call in self._stuck}))
        raise BackendError(f"{models}: a call has stood still for {stuck_s:.0f} s, and only the process's end ends it")

    async def close(self) -> None:
        """Waits for the running calls to end."""
        await asyncio.to_thread(self._threads.shutdown)

    def _ended(self, call: asyncio.Future[Tensors]) -> None:
        del self._calls[call]
        if call in self._stuck:
            self._stuck.remove(call)
            if self.up:
                self._on_change()

    def _call(self, verb: str, inputs: Tensors, cancelled: CancelCheck) -> Tensors:
        with torch.inference_mode():
            return self._runners[VERBS[verb].model].run(verb, inputs, cancelled)
