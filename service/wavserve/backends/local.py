"""The models in this process: runners called on threads of their own, never on the event loop.

As many calls at a time as there are workers; runners may be called by several threads."""

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
    """`run` hands a call to the runner of its model, once one of `workers` threads is free."""

    def __init__(self, runners: Mapping[str, Runner], workers: int = 1) -> None:
        self._runners = runners
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="models")

    async def run(self, verb: str, inputs: Tensors, deadline: float = math.inf) -> Tensors:
        """Outputs of one call. Raises what the runner raises. A call that is cancelled while it runs stops soon."""
        gone = threading.Event()
        call = asyncio.get_running_loop().run_in_executor(self._threads, self._call, verb, inputs, gone.is_set)
        try:
            return await asyncio.shield(call)
        except asyncio.CancelledError:
            gone.set()
            if call.done() and not call.exception():
                return call.result()  # it was ready: slots in it have an owner only if it arrives
            call.add_done_callback(lambda late: late.exception())  # nobody is left to be told
            raise

    async def close(self) -> None:
        """Waits for the calls that run."""
        await asyncio.to_thread(self._threads.shutdown)

    def _call(self, verb: str, inputs: Tensors, cancelled: CancelCheck) -> Tensors:
        with torch.inference_mode():
            return self._runners[VERBS[verb].model].run(verb, inputs, cancelled)
