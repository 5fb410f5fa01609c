"""Keeps the models of one Triton working: asks each for a real answer every `canary_s`, and repairs one that fails.

Triton's own readiness is not reliable: a model whose process died stays "ready" and is never restarted. A repair
unloads the model and loads it again. The last resort is a restart of the server, where that is our child. An endpoint
gets no plans while one of its models is down. Knows models and processes, nothing of plans.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from wavserve.backends.triton.client import About, TritonBackend
from wavserve.backends.triton.exits import ProcessExitWatcher
from wavserve.backends.triton.server import TritonServer
from wavserve.core.errors import ModelDown, SettingsError, WavserveError
from wavserve.core.verbs import ARENA_OWNER, MODELS, VERBS
from wavserve.system.patience import MIN_LIMIT_S, TICK_S, AwakeTime
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
        self.about: dict[str, About] = {}
        """the last description of each model"""
        self._on_change = on_change
        self._expected: str | None = None
        self._slice_size = 1
        self._backend, self._config, self._server = backend, config, server
        self._up = dict.fromkeys(MODELS, False)
        self._alarms = {model: asyncio.Event() for model in MODELS}
        self._repairing = asyncio.Lock()
        self._repairs = 0
        self._failures = 0
        """failed repairs in a row"""
        self._exit_watcher = ProcessExitWatcher(self._on_exit)
        self._refused: dict[str, str] = {}
        """models of another version, each with the reason that the log has"""
        self._on_death = on_death
        self._tasks: list[VitalTask] = []
        backend.on_down = self.mark_down

    @property
    def up(self) -> bool:
        """Whether every model answered the last time it was asked."""
        return all(self._up.values())

    @property
    def serves_wrong_policy(self) -> bool:
        """Whether a model that is up serves another policy than the expected one."""
        if self._expected is None:
            return False
        return any(self._up[model] and about.digest != self._expected for model, about in self.about.items())

    @property
    def num_slots(self) -> int | None:
        """Slots of the arena; None until its owner has answered."""
        arena = self.about[ARENA_OWNER].arena if ARENA_OWNER in self.about else None
        return None if arena is None else arena["slots"]

    @property
    def fits(self) -> bool:
        """Whether a slice fits the arena; a slice that does not fit would wait forever."""
        return self.num_slots is None or self.num_slots >= self._slice_size

    def expect(self, digest: str, slice_size: int) -> None:
        """Sets the digest of the policy that the models must serve, and the number of slots that a slice takes."""
        self._expected, self._slice_size = digest, slice_size
        for about in self.about.values():
            self._warn_about(about)

    def mark_down(self, model: str) -> None:
        """Marks a model down because a call found it unavailable; it is asked at once."""
        self._set_up(model, False)
        self._alarms[model].set()

    @property
    def owns_server(self) -> bool:
        return self._server is not None

    def on_stuck(self, model: str) -> None:
        """Ends the calls of a model that stands still. It is asked at once, and repaired when it does not answer."""
        self._backend.give_up(model, test_calls=False)
        self.mark_down(model)

    def _on_exit(self, model: str) -> None:
        """Ends the calls of a model whose process exited, and has the model repaired."""
        self._backend.give_up(model)
        self.mark_down(model)

    async def start(self) -> None:
        """Starts the server and loads its models, where it is ours. Then asks every model, and begins to watch.

        Raises the error of a failed load (BundleError, SettingsError), SettingsError when a model's verb table differs
        from ours, and ModelDown when a foreign server has no models.
        """
        if self._server is not None:
            await self._start_server(self._server)
        for model in MODELS:
            self._record(await self._describe(model))
        self.watch()

    def watch(self) -> None:
        """Watches the models and repairs those that do not answer, until `close`."""
        work = {f"{self.name}: the watch of {model}": self._watch_model(model) for model in MODELS}
        if self._server is not None:
            work[f"{self.name}: the watch of the server"] = self._watch_server(self._server)
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
                self._set_up(model, False)

    async def _check(self, model: str) -> None:
        """Asks a model, and repairs it when it does not answer.

        A model of another version is watched and not repaired: a reload brings back the same version, and on a foreign
        server it would take the model away from gateways of that version.
        """
        if await self._answers(model) or model in self._refused:
            return
        before = self._repairs
        async with self._repairing:
            if (self._repairs != before or self._server is None) and await self._answers(model):
                return  # another repair brought it back: this gateway's, or another gateway's of a foreign server
            if model in self._refused:
                return
            if self._server is not None and not self._server.running:
                return  # it restarts with all its models
            if self._server is not None and not await self._backend.is_live(MIN_LIMIT_S):
                log.error("tritonserver does not answer: restarting it")
                self._server.kill()
                return
            pause_s = await self._repair(model)
        await asyncio.sleep(pause_s)  # without the lock: other models and the server are repaired meanwhile

    async def _repair(self, model: str) -> float:
        """Reloads a model, or restarts the server. Returns the seconds until this model should be tried again."""
        self._repairs += 1
        self._failures += 1
        if self._server is not None and self._failures > self._config.max_repairs:
            log.error("%d repairs in a row failed: restarting the server", self._failures - 1)
            self._failures = 0
            self._server.kill()
            return 0.0
        log.warning("%s is unavailable: reloading it", model)
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
        lost = model == ARENA_OWNER and model in self.about and self.about[model].device == "cuda"
        return (model, *FEATURE_READERS) if lost else (model,)

    async def _reload(self, models: tuple[str, ...]) -> None:
        for model in models:
            self._set_up(model, False)
            await self._exit_watcher.kill(model)  # a process that hangs would never unload
            self._backend.give_up(model)
            await self._backend.unload(model, self._config.load_s)
        await self._load(models)

    async def _load(self, models: Sequence[str]) -> None:
        """Loads models side by side. Raises the error of one, and ModelDown when a model's process dies meanwhile.

        Triton would go on loading a model whose process died.
        """
        loads = asyncio.gather(*(self._backend.load(model, self._config.load_s) for model in models))
        if self._server is None:
            await loads
            return
        death = asyncio.create_task(self._server.child_death())
        both: tuple[asyncio.Future[Any], ...] = (loads, death)
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if not loads.done():
                raise ModelDown(death.result())
            await loads
        finally:
            for each in both:
                each.cancel()
            await asyncio.gather(*both, return_exceptions=True)

    async def _watch_server(self, server: TritonServer) -> None:
        backoff_s = self._config.canary_s
        while True:
            code, pause_s = await server.wait(), 0.0
            log.error("tritonserver exited with code %s: restarting it", code)
            for model in MODELS:
                self._set_up(model, False)
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

    async def _start_server(self, server: TritonServer) -> None:
        self._exit_watcher.close()
        await self._backend.reconnect(await server.start())
        await self._load(MODELS)

    async def _answers(self, model: str, is_fresh: bool = False) -> bool:
        """Asks a model to describe itself, records the result, and returns whether it may be used.

        A model that was loaded just now (`is_fresh`) may take its time.
        """
        if self._exit_watcher.has_exited(model):
            return False  # Triton would need a second to notice
        try:
            self._record(await self._describe_soon(model, is_fresh))
        except SettingsError as error:
            self._refuse(model, error)
            return False
        except WavserveError as error:
            self._refused.pop(model, None)
            log.debug("%s does not answer: %s", model, error.message)
            self._set_up(model, False)
            self._alarms[model].clear()  # this call set it; another call at once would find the same
            return False
        return True

    async def _describe_soon(self, model: str, is_fresh: bool) -> About:
        """As `_describe`. Raises ModelDown as soon as a model of our own server stands still.

        The test call may wait behind our other calls; only the time in which there are none counts. On a foreign server
        it may wait for calls of other gateways, which nobody here sees.
        """
        if self._server is None or is_fresh:
            return await self._describe(model)
        asking = asyncio.create_task(self._describe(model))
        try:
            waited_s, awake = 0.0, AwakeTime(asyncio.get_running_loop().time)
            while not (await asyncio.wait([asking], timeout=TICK_S))[0]:
                seconds = awake.tick()
                waited_s += seconds if self._backend.is_idle() else 0.0
                if waited_s > min(MIN_LIMIT_S, self._config.hang_s):
                    raise ModelDown(f"{model}: no answer to a test call for {waited_s:.1f} s")
            return asking.result()
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    async def _describe(self, model: str) -> About:
        """Asks a model to describe itself. Raises SettingsError when its verb table differs from ours."""
        about = await self._backend.describe(model, self._config.hang_s)
        about.check_verbs(self.name)
        return about

    def _refuse(self, model: str, error: SettingsError) -> None:
        """Marks a model of another version down, although it answers. The log says so once."""
        if self._refused.get(model) != error.message:
            self._refused[model] = error.message
            log.error("%s", error.message)
        self._set_up(model, False)
        self._alarms[model].clear()

    def _record(self, about: About) -> None:
        known = self.about.get(about.model)
        self.about[about.model] = about
        self._refused.pop(about.model, None)
        if known is None or known.process != about.process:
            self._warn_about(about)
        if self._server is not None:
            self._exit_watcher.watch(about.model, Process(*about.process))
        self._set_up(about.model, True)

    def _warn_about(self, about: About) -> None:
        """Logs why an endpoint gets no plans although its models answer."""
        if self._expected not in (None, about.digest):
            digests = (str(self._expected)[:16], about.digest[:16])
            log.error(
                "%s: %s serves another policy, expected %s, got %s: no plans are accepted",
                self.name,
                about.model,
                *digests,
            )
        if about.arena is not None and about.arena["slots"] < self._slice_size:
            slots = (self._slice_size, about.arena["slots"])
            log.error("%s: expected at least %d arena slots (one slice), got %d: it gets no plans", self.name, *slots)

    def _set_up(self, model: str, up: bool) -> None:
        if self._up[model] != up:
            self._up[model] = up
            self._on_change(model, up)
