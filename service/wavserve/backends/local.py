"""The models in this process: runners run in worker threads, never on the event loop.

As many calls run at a time as there are workers, so several threads may call a runner at once.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import torch

from wavserve.core.types import Tensors
from wavserve.core.verbs import VERBS
from wavserve.models.runners.calls import CancelCheck, Runner


class LocalBackend:
    """`run` gives a call to the runner of its model as soon as one of `workers` threads is free."""

    def __init__(self, runners: Mapping[str, Runner], workers: int = 1) -> None:
        self._runners = runners
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="models")

    async def run(self, verb: str, inputs: Tensors, deadline: float = math.inf) -> Tensors:
        """The outputs of one call. Raises what the runner raises. A call that is cancelled while it runs stops soon."""
        cancelled = threading.Event()
        call = asyncio.get_running_loop().run_in_executor(self._threads, self._call, verb, inputs, cancelled.is_set)
        try:
            return await asyncio.shield(call)
        except asyncio.CancelledError:
            cancelled.set()
            if call.done() and not call.exception():
                return call.result()  # it is complete, and its arena slots have an owner only if the caller gets it
            call.add_done_callback(lambda late: late.exception())  # no caller is left for the error
            raise

    async def close(self) -> None:
        """Waits for the running calls to end."""
        await asyncio.to_thread(self._threads.shutdown)

    def _call(self, verb: str, inputs: Tensors, cancelled: CancelCheck) -> Tensors:
        with torch.inference_mode():
            return self._runners[VERBS[verb].model].run(verb, inputs, cancelled)
