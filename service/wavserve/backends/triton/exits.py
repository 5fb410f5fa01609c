"""Exits of the models' processes on this machine, as the kernel reports them. Knows nothing of Triton."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable

from wavserve.system.processes import Process


class ProcessExitWatcher:
    """Watches the processes of our models, by model: the kernel reports at once when one exits."""

    def __init__(self, on_exit: Callable[[str], None]) -> None:
        self._on_exit = on_exit
        self._watched: dict[str, tuple[Process, int]] = {}

    def watch(self, model: str, process: Process) -> None:
        if model in self._watched and self._watched[model][0] == process:
            return
        self._forget(model)
        with contextlib.suppress(ProcessLookupError):  # it has exited; its successor will be watched
            handle = os.pidfd_open(process.pid)
            self._watched[model] = process, handle
            asyncio.get_running_loop().add_reader(handle, self._exited, model, handle)

    def has_exited(self, model: str) -> bool:
        """Whether the model's process has exited and no successor is known yet."""
        return model in self._watched and not self._watched[model][0].alive

    async def kill(self, model: str) -> None:
        """Kills a model's process if it is still alive, stops watching it, and waits a while until it has ended."""
        if model in self._watched:
            process, handle = self._watched[model]
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
            self._forget(model)
            for _ in range(100):  # else its end would be taken for the end of its successor
                if not process.alive:
                    break
                await asyncio.sleep(0.02)

    def close(self) -> None:
        for model in list(self._watched):
            self._forget(model)

    def _exited(self, model: str, handle: int) -> None:
        asyncio.get_running_loop().remove_reader(handle)
        self._on_exit(model)

    def _forget(self, model: str) -> None:
        if model in self._watched:
            _, handle = self._watched.pop(model)
            asyncio.get_running_loop().remove_reader(handle)
            os.close(handle)
