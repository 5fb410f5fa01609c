"""Keeps the models of one Triton working: asks each for a real answer every `canary_s`, and repairs one that fails.

Triton's own readiness is not reliable: a model whose process died stays "ready" and is never restarted. A repair
unloads the model and loads it again. The last resort is a restart of the server, where that is our child. An endpoint
gets no plans while one of its models is down. Knows models and processes, nothing of plans.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial

from wavserve.backends.triton.client import About, TritonBackend
from wavserve.backends.triton.exits import ProcessExitWatcher
from wavserve.backends.triton.own_server import OwnServer
from wavserve.backends.triton.reports import ModelReports, ask, ask_soon
from wavserve.backends.triton.server import TritonServer
from wavserve.core.errors import SettingsError, WavserveError
from wavserve.core.verbs import ARENA_OWNER, MODELS, VERBS
from wavserve.system.processes import Process
from wavserve.system.vital_tasks import OnDeath, VitalTask, ignore_death

log = logging.getLogger(__name__)

FEATURE_READERS = (VERBS["score"].model, VERBS["decode"].model)
MAX_BACKOFF_S = 30.0


@dataclass(frozen=True, slots=True)
class WatchConfig:
    """Seconds and counts of a supervisor; see `app.settings`."""

    canary_s: float
    hang_s: float
    load_s: float
    max_repairs: int


class Supervisor:
    """Watches one endpoint. `server` is the process behind it, where that is our child."""

    def __init__(
        self,
        name: str,
        backend: TritonBackend,
        config: WatchConfig,
        server: TritonServer | None = None,
        on_change: Callable[[str, bool], None] = lambda model, up: None,
        on_death: OnDeath = ignore_death,
    ) -> None:
        self.name = name
        self.models = ModelReports(name, on_change)
        self.backend, self._config = backend, config
        self._server = None if server is None else OwnServer(server, backend, config.load_s, config.hang_s)
        self._alarms = {model: asyncio.Event() for model in MODELS}
        self._server_alarm = asyncio.Event()
        self._ask = partial(ask, name, backend, hang_s=config.hang_s)
        self._repairing = asyncio.Lock()
        self._repairs = 0
        self._failures = 0
        """failed repairs in a row"""
        self._faults: dict[str, str] = {}
        """why each model was last found unavailable, for the log"""
        self._exit_watcher = ProcessExitWatcher(self._on_exit)
        self._on_death = on_death
        self.on_repair: Callable[[str], None] = lambda part: None
        """receives the name of each model that is about to be reloaded, and `server` when that is restarted"""
        self._tasks: list[VitalTask] = []
        backend.on_down = self.mark_down

    @property
    def owns_server(self) -> bool:
        return self._server is not None

    def mark_down(self, model: str) -> None:
        """Marks a model down because a call found it unavailable; it is asked at once."""
        self.models.mark_down(model)
        self._alarms[model].set()

    def on_stuck(self, model: str) -> None:
        """Ends the calls of a model that stands still. The model and its server are asked at once.

        The model is repaired when it does not answer, and the server restarted when it does not.
        """
        self.backend.give_up(model, test_calls=False)
        self.mark_down(model)
        self._server_alarm.set()

    def _on_exit(self, model: str) -> None:
        """Ends the calls of a model whose process exited, and has the model repaired."""
        self.backend.give_up(model)
        self.mark_down(model)

    async def start(self) -> None:
        """Starts the server and loads its models, where it is ours. Then asks every model, and begins to watch.

        Raises the error of a failed load (BundleError, SettingsError), SettingsError when a model's verb table differs
        from ours, and ModelDown when a foreign server has no models. A model of a foreign server whose process is dead
        is repaired meanwhile: a later call finds it.
        """
        if self._server is not None:
            await self._start_server(self._server)
        for model in MODELS:
            try:
                self._record(await self._ask(model))
            except SettingsError:
                raise
            except WavserveError:
                if self._server is None and await self._state(model) == "READY":
                    self.watch()
                raise
        self.watch()

    async def _state(self, model: str) -> str:
        """Of a model, in the server's words; empty: the server tells none."""
        with contextlib.suppress(WavserveError):
            return await self.backend.state(model, self._config.hang_s)
        return ""

    def watch(self) -> None:
        """Watches the models and repairs those that do not answer, until `close`. Once is enough."""
        if self._tasks:
            return
        work = {f"{self.name}: the watch of {model}": self._watch_model(model) for model in MODELS}
        if self._server is not None:
            work[f"{self.name}: the watch of the server"] = self._watch_server(self._server)
            work[f"{self.name}: the watch of the server's answers"] = self._watch_answers(self._server)
        self._tasks += [VitalTask(each, name, self._on_death) for name, each in work.items()]

    def drain(self) -> None:
        """Repairs nothing more. A process that exits and a call that fails still mark their model down."""
        for task in self._tasks:
            task.cancel()

    async def close(self) -> None:
        """Stops watching, and stops the server where it is ours."""
        await asyncio.gather(*(task.stop() for task in self._tasks))
        self._exit_watcher.close()
        if self._server is not None:
            await self._server.stop()

    async def _watch_model(self, model: str) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._config.canary_s):
                    await self._alarms[model].wait()
            self._alarms[model].clear()
            try:
                await self._check(model)
            except Exception:
                log.exception("%s: the check failed", model)
                self.models.mark_down(model)

    async def _check(self, model: str) -> None:
        """Asks a model, and repairs it when it does not answer.

        A model of another version is watched and not repaired: a reload brings back the same version, and on a foreign
        server it would take the model away from gateways of that version.
        """
        if await self._answers(model) or self.models.is_refused(model):
            return
        before = self._repairs
        async with self._repairing:
            if (self._repairs != before or self._server is None) and await self._answers(model):
                return  # another repair brought it back: this gateway's, or another gateway's of a foreign server
            if self.models.is_refused(model):
                return
            if self._server is not None and not await self._server.check_live():
                return  # it restarts with all its models
            if self._server is None and await self._state(model) in ("LOADING", "UNLOADING"):
                return  # another gateway repairs it: an unload would wait for its load, and undo it
            pause_s = await self._repair(model)
        await asyncio.sleep(pause_s)  # without the lock: other models and the server are repaired meanwhile

    async def _repair(self, model: str) -> float:
        """Reloads a model, or restarts the server. Returns the seconds until this model should be tried again."""
        self._repairs += 1
        self._failures += 1
        if self._server is not None and self._failures > self._config.max_repairs:
            self._server.restart(f"{self._failures - 1} repairs of tritonserver's models in a row failed")
            self._failures = 0
            return 0.0
        log.warning("%s is unavailable, %s: reloading it", model, self._faults.get(model, "for an unknown reason"))
        self.on_repair(model)
        try:
            await self._reload(self._with_dependents(model))
        except WavserveError as error:
            log.error("%s: cannot be loaded: %s", model, error.message)
        if await self._answers(model, is_fresh=True):
            log.info("%s is available again", model)
            self._failures = 0
        if self._server is not None:
            self._server.remove_unused()
        return min(self._failures * self._config.canary_s, MAX_BACKOFF_S)

    def _with_dependents(self, model: str) -> tuple[str, ...]:
        """The models to reload together: on CUDA the features died with their owner's process, and their readers must
        drop the mappings."""
        about = self.models.about.get(model)
        lost = model == ARENA_OWNER and about is not None and about.device == "cuda"
        return (model, *FEATURE_READERS) if lost else (model,)

    async def _reload(self, models: tuple[str, ...]) -> None:
        for model in models:
            self.models.mark_down(model)
            await self._exit_watcher.kill(model)  # a process that hangs would never unload
            self.backend.give_up(model)
            if self._server is None:
                await self.backend.unload(model, self._config.load_s)
            else:
                await self._server.unload(model)
        if self._server is None:
            await asyncio.gather(*(self.backend.load(model, self._config.load_s) for model in models))
        else:
            await self._server.load(models)

    async def _watch_answers(self, server: OwnServer) -> None:
        """Asks the server when a call stands still: that is sooner known than whether the model stands still."""
        while True:
            await self._server_alarm.wait()
            self._server_alarm.clear()
            await server.check_live()

    async def _watch_server(self, server: OwnServer) -> None:
        backoff_s = self._config.canary_s
        while True:
            code, pause_s = await server.ended(), 0.0
            log.error("tritonserver exited with code %s: restarting it", code)
            self.on_repair("server")
            for model in MODELS:
                self.models.mark_down(model)
            async with self._repairing:
                try:
                    await self._start_server(server)
                    await asyncio.gather(*(self._answers(model, is_fresh=True) for model in MODELS))
                    self._repairs, self._failures = self._repairs + 1, 0
                    backoff_s = self._config.canary_s
                except Exception as error:
                    unknown = None if isinstance(error, WavserveError) else error
                    log.error("tritonserver cannot be started: %s", error, exc_info=unknown)
                    server.kill()
                    pause_s, backoff_s = backoff_s, min(2 * backoff_s, MAX_BACKOFF_S)
            await asyncio.sleep(pause_s)

    async def _start_server(self, server: OwnServer) -> None:
        self._exit_watcher.close()
        await server.start()

    async def _answers(self, model: str, is_fresh: bool = False) -> bool:
        """Asks a model to describe itself, records the result, and returns whether it may be used.

        A model that was loaded just now (`is_fresh`) may take its time.
        """
        if self._exit_watcher.has_exited(model):
            self._faults[model] = "its process has exited"  # Triton would need a second to notice
            return False
        try:
            # on a foreign server a test call may wait for calls of other gateways, which nobody here sees
            may_take_long = is_fresh or self._server is None
            self._record(await (self._ask(model) if may_take_long else self._ask_soon(model)))
        except SettingsError as error:
            self.models.refuse(model, error)
        except WavserveError as error:
            log.debug("%s does not answer: %s", model, error.message)
            self._faults[model] = f"it does not answer ({error.message})"
            self.models.no_answer(model)
        else:
            return True
        self._alarms[model].clear()  # this call may have set it; another call at once would find the same
        return False

    def _ask_soon(self, model: str) -> Coroutine[object, object, About]:
        return ask_soon(self.name, self.backend, model, self._config.hang_s, self.models.last_process(model))

    def _record(self, about: About) -> None:
        if self._server is not None:
            self._exit_watcher.watch(about.model, Process(*about.process))
        self.models.record(about)
