"""The models in this process: runners called one at a time on a thread of their own, never on the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import torch

from wavserve.models.calls import Runner
from wavserve.types import Tensors
from wavserve.verbs import VERBS


class LocalBackend:
    """`run` hands a call to the runner of its model. The digest was taken from the bundle the weights came from."""

    def __init__(self, runners: Mapping[str, Runner], policy_digest: str) -> None:
        self.policy_digest = policy_digest
        self._runners = runners
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="models")

    async def run(self, verb: str, inputs: Tensors) -> Tensors:
        """Outputs of one call. Raises what the runner raises; a call that started runs to its end."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._call, verb, inputs)

    async def close(self) -> None:
        """Waits for the running call."""
        await asyncio.to_thread(self._thread.shutdown)

    def _call(self, verb: str, inputs: Tensors) -> Tensors:
        with torch.inference_mode():
            return self._runners[VERBS[verb].model].run(verb, inputs)
