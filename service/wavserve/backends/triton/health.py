"""Keeps the models of one Triton working: asks each every second, and repairs what does not answer.

Triton's own readiness cannot be trusted - a model whose process died stays "ready" and is never started again - so
every model is asked for a real answer. Repair is unloading and loading; the last resort, where the server is ours, is
starting it again. Called by the composition root; the policy takes no plans while a model is down.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass

from wavserve.backends.triton.client import About, TritonBackend
from wavserve.backends.triton.server import TritonServer
from wavserve.core.errors import SettingsError, WavserveError
from wavserve.core.verbs import MODELS, VERBS
from wavserve.system.processes import Process

log = logging.getLogger(__name__)

FEATURE_OWNER = VERBS["imagine"].model
FEATURE_READERS = (VERBS["score"].model, VERBS["decode"].model)
MAX_BACKOFF_S = 30.0


@dataclass(frozen=True, slots=True)
class WatchConfig:
    """Seconds and counts of a supervisor; see `settings`."""

    canary_s: float
    hang_s: float
    load_s: float
    max_repairs: int


class Supervisor:
    """Watches one endpoint. `server`: the process behind it, where it is our child."""

    def __init__(
        self,
        name: str,
        backend: TritonBackend,
        config: WatchConfig,
        server: TritonServer | None = None,
        on_change: Callable[[str, bool], None] = lambda model, up: None,
    ) -> None:
        self.name = name
        self.about: dict[str, About] = {}
        """what each model said last"""
        self._on_change = on_change
        self._expected: str | None = None
        self._slice_size = 1
        self._backend, self._config, self._server = backend, config, server
        self._up = dict.fromkeys(MODELS, False)
        self._alarms = {model: asyncio.Event() for model in MODELS}
        self._repairing = asyncio.Lock()
        self._repairs = 0
        self._failures = 0
        """in a row"""
        self._exits = ProcessExitWatcher(self._on_exit)
        self._refused: set[str] = set()  # messages that the log has already
        self._tasks: list[asyncio.Task[None]] = []
        backend.on_down = self.report

    @property
    def up(self) -> bool:
        """Whether every model answered when it was asked last."""
        return all(self._up.values())

    @property
    def serves_wrong_policy(self) -> bool:
        """Whether a model that is up serves another policy than the expected one."""
        if self._expected is None:
            return False
        return any(self._up[model] and about.digest != self._expected for model, about in self.about.items())

    @property
    def num_slots(self) -> int | None:
        """Slots of the arena; None before its owner answered."""
        arena = self.about[FEATURE_OWNER].arena if FEATURE_OWNER in self.about else None
        return None if arena is None else arena["slots"]

    @property
    def fits(self) -> bool:
        """Whether a slice fits the arena; one that does not would wait for ever."""
        return self.num_slots is None or self.num_slots >= self._slice_size

    def expect(self, digest: str, slice_size: int) -> None:
        """Tells which policy the models are to serve, and how many slots a slice takes."""
        self._expected, self._slice_size = digest, slice_size
        for about in self.about.values():
            self._warn_of(about)

    def report(self, model: str) -> None:
        """Somebody's call found the model gone: it is asked at once."""
        self._set(model, False)
        self._alarms[model].set()

    @property
    def owns_server(self) -> bool:
        return self._server is not None

    def _on_exit(self, model: str) -> None:
        """A model's process died: its calls will not be answered."""
        self._backend.give_up(model)
        self.report(model)

    async def start(self) -> None:
        """Starts the server and loads its models where it is ours, asks every model, and watches from then on.

        Raises what loading failed with (BundleError, SettingsError), SettingsError when a model's verb table is not
        ours, ModelDown where a foreign server has no models.
        """
        if self._server is not None:
            await self._start_server(self._server)
        for model in MODELS:
            self._note(await self._describe(model))
        self.watch()

    def watch(self) -> None:
        """Watches, and repairs what does not answer, until `close`."""
        work = [self._keep_model(model) for model in MODELS]
        if self._server is not None:
            work.append(self._keep_server(self._server))
        self._tasks += [asyncio.create_task(each) for each in work]

    async def close(self) -> None:
        """Stops watching, and the server where it is ours."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._exits.close()
        if self._server is not None:
            await self._server.stop()

    async def _keep_model(self, model: str) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._config.canary_s):
                    await self._alarms[model].wait()
            self._alarms[model].clear()
            try:
                await self._look_after(model)
            except Exception:
                log.exception("%s: watching it failed", model)
                self._set(model, False)

    async def _look_after(self, model: str) -> None:
        """Asks a model, and repairs it when it does not answer."""
        if await self._answers(model):
            return
        before = self._repairs
        async with self._repairing:
            if (self._repairs != before or self._server is None) and await self._answers(model):
                return  # it came back with another's repair; others' servers may have other gateways that repair
            if self._server is None or self._server.running:  # else it is started again with all its models
                await self._repair(model)

    async def _repair(self, model: str) -> None:
        self._repairs += 1
        self._failures += 1
        if self._server is not None and self._failures > self._config.max_repairs:
            log.error("models do not come back after %d repairs: starting the server again", self._failures - 1)
            self._failures = 0
            self._server.kill()
            return
        log.warning("%s is gone: loading it again", model)
        try:
            await self._reload(self._with_dependents(model))
        except WavserveError as error:
            log.error("%s: cannot be loaded: %s", model, error.message)
            await asyncio.sleep(min(self._failures * self._config.canary_s, MAX_BACKOFF_S))
        if await self._answers(model):
            log.info("%s is back", model)
            self._failures = 0
        if self._server is not None:
            self._server.remove_unused()

    def _with_dependents(self, model: str) -> tuple[str, ...]:
        """On CUDA the features died with their owner's process, and so must the mappings of them."""
        lost = model == FEATURE_OWNER and model in self.about and self.about[model].device == "cuda"
        return (model, *FEATURE_READERS) if lost else (model,)

    async def _reload(self, models: tuple[str, ...]) -> None:
        for model in models:
            self._set(model, False)
            self._exits.end(model)  # one that hangs would never unload
            self._backend.give_up(model)
            await self._backend.unload(model, self._config.load_s)
        await asyncio.gather(*(self._backend.load(model, self._config.load_s) for model in models))

    async def _keep_server(self, server: TritonServer) -> None:
        backoff_s = self._config.canary_s
        while True:
            code = await server.wait()
            log.error("tritonserver ended with code %s: starting it again", code)
            for model in MODELS:
                self._set(model, False)
            async with self._repairing:
                try:
                    await self._start_server(server)
                    await asyncio.gather(*(self._answers(model) for model in MODELS))
                    self._repairs, self._failures = self._repairs + 1, 0
                    backoff_s = self._config.canary_s
                except Exception as error:
                    unknown = None if isinstance(error, WavserveError) else error
                    log.error("tritonserver cannot be started: %s", error, exc_info=unknown)
                    server.kill()
                    await asyncio.sleep(backoff_s)
                    backoff_s = min(2 * backoff_s, MAX_BACKOFF_S)

    async def _start_server(self, server: TritonServer) -> None:
        self._exits.close()
        await self._backend.reconnect(await server.start())
        await asyncio.gather(*(self._backend.load(model, self._config.load_s) for model in MODELS))

    async def _answers(self, model: str) -> bool:
        """Asks a model who it is, and notes the answer."""
        if self._exits.dead(model):
            return False  # Triton would take a second to find out
        try:
            self._note(await self._describe(model))
        except SettingsError as error:
            self._refuse(model, error)
            return False
        except WavserveError as error:
            log.debug("%s does not answer: %s", model, error.message)
            self._set(model, False)
            self._alarms[model].clear()  # this call's own: asking again at once would tell nothing new
            return False
        return True

    async def _describe(self, model: str) -> About:
        """What a model says of itself. Raises SettingsError when its verb table is not ours."""
        about = await self._backend.describe(model, self._config.hang_s)
        about.check_verbs(self.name)
        return about

    def _refuse(self, model: str, error: SettingsError) -> None:
        """A model of another version works, and is not used; the log says so once."""
        if error.message not in self._refused:
            self._refused.add(error.message)
            log.error("%s", error.message)
        self._set(model, False)
        self._alarms[model].clear()

    def _note(self, about: About) -> None:
        known = self.about.get(about.model)
        self.about[about.model] = about
        if known is None or known.process != about.process:
            self._warn_of(about)
        if self._server is not None:
            self._exits.follow(about.model, Process(*about.process))
        self._set(about.model, True)

    def _warn_of(self, about: About) -> None:
        """Says what keeps an endpoint from being planned on although its models work."""
        if self._expected not in (None, about.digest):
            told = (self.name, about.model, about.digest[:16], str(self._expected)[:16])
            log.error("%s: %s serves another policy, %s, than this service, %s: no plans are taken", *told)
        if about.arena is not None and about.arena["slots"] < self._slice_size:
            told_slots = (self.name, self._slice_size, about.arena["slots"])
            log.error("%s: expected at least %d arena slots, a slice, got %d: it gets no plans", *told_slots)

    def _set(self, model: str, up: bool) -> None:
        if self._up[model] != up:
            self._up[model] = up
            self._on_change(model, up)


class ProcessExitWatcher:
    """Processes of ours by the model they run: their deaths are told at once, by the kernel."""

    def __init__(self, on_exit: Callable[[str], None]) -> None:
        self._on_death = on_exit
        self._followed: dict[str, tuple[Process, int]] = {}

    def follow(self, model: str, process: Process) -> None:
        if model in self._followed and self._followed[model][0] == process:
            return
        self._drop(model)
        with contextlib.suppress(ProcessLookupError):  # its successor will be followed
            handle = os.pidfd_open(process.pid)
            self._followed[model] = process, handle
            asyncio.get_running_loop().add_reader(handle, self._exited, model, handle)

    def dead(self, model: str) -> bool:
        """Whether the process that was followed last has died and no other is known yet."""
        return model in self._followed and not self._followed[model][0].alive

    def end(self, model: str) -> None:
        """Kills a model's process, if it still lives, and forgets it."""
        if model in self._followed:
            _, handle = self._followed[model]
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
            self._drop(model)

    def close(self) -> None:
        for model in list(self._followed):
            self._drop(model)

    def _exited(self, model: str, handle: int) -> None:
        asyncio.get_running_loop().remove_reader(handle)
        self._on_death(model)

    def _drop(self, model: str) -> None:
        if model in self._followed:
            _, handle = self._followed.pop(model)
            asyncio.get_running_loop().remove_reader(handle)
            os.close(handle)
