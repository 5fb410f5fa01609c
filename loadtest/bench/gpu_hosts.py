"""Runs each model in its own process. The processes share one arena; pipes carry the calls.

This replaces Triton on a machine where Triton cannot run. On CUDA the processes share the features through CUDA IPC.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from wavserve.bundle import bundle
from wavserve.core.errors import BackendError
from wavserve.core.types import Tensors
from wavserve.core.verbs import VERBS
from wavserve.models.runners import host
from wavserve.models.runners.loading import RunnerConfig
from wavserve.system.processes import owned_name

MODELS = ("video_dit", "value_dit", "action_dit")
LOADED = "loaded"
_SPAWN = multiprocessing.get_context("spawn")  # a CUDA context does not survive a fork


@dataclass(frozen=True, slots=True)
class _Hosted:
    process: BaseProcess
    pipe: Connection


class Hosts:
    """A `Backend` of the three transformers. `load` starts their processes. `kill` kills one of them."""

    def __init__(self, folder: Path, config: RunnerConfig) -> None:
        self._folder, self._config, self._prefix = folder, config, owned_name("wavserve-report")
        self._threads = ThreadPoolExecutor(len(MODELS))
        self._hosted: dict[str, _Hosted] = {}

    def load(self) -> None:
        """Loads all three again, as a service does after the arena owner's process exit. Raises BackendError."""
        self._end()
        for model in MODELS:
            own_end, child_end = _SPAWN.Pipe()
            work = (child_end, model, self._folder, self._config, self._prefix)
            process = _SPAWN.Process(target=_serve, args=work, daemon=True)
            process.start()
            child_end.close()
            self._hosted[model] = _Hosted(process, own_end)
        for model in MODELS:
            self._received(model)

    def kill(self, model: str) -> None:
        self._hosted[model].process.kill()
        self._hosted[model].process.join()

    async def run(self, verb: str, inputs: Tensors, deadline: float = math.inf) -> Tensors:
        """Runs one call. Raises BackendError with the model's error, or when its process has exited."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._call, verb, inputs)

    async def close(self) -> None:
        await asyncio.to_thread(self._end)
        self._threads.shutdown()

    def _call(self, verb: str, inputs: Tensors) -> Tensors:
        model = VERBS[verb].model
        with contextlib.suppress(BrokenPipeError):  # the process has exited, which `_received` reports
            self._hosted[model].pipe.send((verb, inputs))
        outputs: Tensors = self._received(model)
        return outputs

    def _received(self, model: str) -> Any:
        try:
            answer, error = self._hosted[model].pipe.recv()
        except (EOFError, ConnectionError):
            raise BackendError(f"{model}: its process ended") from None
        if error is not None:
            raise BackendError(f"{model}: {error}")
        return answer

    def _end(self) -> None:
        for hosted in self._hosted.values():
            hosted.pipe.close()  # ends the process
            hosted.process.join()
        self._hosted.clear()


def _serve(pipe: Connection, model: str, folder: Path, config: RunnerConfig, prefix: str) -> None:
    """Serves one model in its own process until the pipe is closed."""
    try:
        loaded = host.load(model, bundle.load(folder), config, prefix)
    except Exception as error:  # noqa: BLE001 - sent to the caller
        pipe.send((None, repr(error)))
        return
    pipe.send((LOADED, None))
    try:
        while True:
            verb, inputs = pipe.recv()
            try:
                pipe.send((loaded.run(verb, inputs, lambda: False), None))
            except Exception as error:  # noqa: BLE001 - sent to the caller
                pipe.send((None, repr(error)))
    except EOFError:
        loaded.close()
