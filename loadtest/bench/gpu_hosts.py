"""The models of a bundle in processes of their own around one shared arena, reached through pipes.

What Triton does for a service, where there is no Triton; on CUDA the features cross by CUDA IPC. Imported by
`gpu_report`.
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
    """A `Backend` of the three transformers. `load` starts their processes, `kill` ends one without a word."""

    def __init__(self, folder: Path, config: RunnerConfig) -> None:
        self._folder, self._config, self._prefix = folder, config, owned_name("wavserve-report")
        self._threads = ThreadPoolExecutor(len(MODELS))
        self._hosted: dict[str, _Hosted] = {}

    def load(self) -> None:
        """All three anew, as a service loads them when the arena's owner died. Raises BackendError."""
        self._end()
        for model in MODELS:
            ours, theirs = _SPAWN.Pipe()
            work = (theirs, model, self._folder, self._config, self._prefix)
            process = _SPAWN.Process(target=_serve, args=work, daemon=True)
            process.start()
            theirs.close()
            self._hosted[model] = _Hosted(process, ours)
        for model in MODELS:
            self._received(model)

    def kill(self, model: str) -> None:
        self._hosted[model].process.kill()
        self._hosted[model].process.join()

    async def run(self, verb: str, inputs: Tensors, deadline: float = math.inf) -> Tensors:
        """Raises BackendError with the model's words, or when it is gone."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._call, verb, inputs)

    async def close(self) -> None:
        await asyncio.to_thread(self._end)
        self._threads.shutdown()

    def _call(self, verb: str, inputs: Tensors) -> Tensors:
        model = VERBS[verb].model
        with contextlib.suppress(BrokenPipeError):  # then it ended, which is told below
            self._hosted[model].pipe.send((verb, inputs))
        outputs: Tensors = self._received(model)
        return outputs

    def _received(self, model: str):  # type: ignore[no-untyped-def]
        try:
            answer, error = self._hosted[model].pipe.recv()
        except (EOFError, ConnectionError):
            raise BackendError(f"{model}: its process ended") from None
        if error is not None:
            raise BackendError(f"{model}: {error}")
        return answer

    def _end(self) -> None:
        for hosted in self._hosted.values():
            hosted.pipe.close()  # at which it ends
            hosted.process.join()
        self._hosted.clear()


def _serve(pipe: Connection, model: str, folder: Path, config: RunnerConfig, prefix: str) -> None:
    """One model's process, until its pipe is closed."""
    try:
        loaded = host.load(model, bundle.load(folder), config, prefix)
    except Exception as error:  # noqa: BLE001 - told to who waits
        pipe.send((None, repr(error)))
        return
    pipe.send((LOADED, None))
    try:
        while True:
            verb, inputs = pipe.recv()
            try:
                pipe.send((loaded.run(verb, inputs, lambda: False), None))
            except Exception as error:  # noqa: BLE001 - told to who waits
                pipe.send((None, repr(error)))
    except EOFError:
        loaded.close()
