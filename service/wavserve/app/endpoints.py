"""The Triton endpoints of a fleet, which join and leave while the service runs: their supervisors and devices.

Part of the composition root. Knows neither settings nor how a supervisor or a device is made.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Set
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wavserve.app.members import Members
from wavserve.bundle.golden import Golden, unpack
from wavserve.core.closing import close_all
from wavserve.core.errors import ModelDown, SettingsError, WavserveError
from wavserve.core.spec import PolicySpec
from wavserve.core.verbs import ARENA_OWNER, MODELS
from wavserve.planning.device import Device, Health
from wavserve.policy.placement import Placement
from wavserve.system.vital_tasks import VitalTask

if TYPE_CHECKING:
    from wavserve.backends.triton.client import About
    from wavserve.backends.triton.health import Supervisor

log = logging.getLogger(__name__)

CONNECT_RETRY_S = 1.0
"""Pause before a Triton that has not answered yet is asked again."""
OTHERS_S = 5.0
"""How long a start waits for the other Tritons once one has answered."""
GOLDEN_S = 30.0
"""How long a start waits for the golden plan."""
LOOK_S = 0.05

MakeSupervisor = Callable[[str], "Supervisor"]
MakeDevice = Callable[["Supervisor"], Device]


@dataclass(frozen=True, slots=True)
class Serving:
    """What an endpoint needs to become a device."""

    placement: Placement
    make_device: MakeDevice
    """a device over an endpoint; its batcher runs"""
    drain_s: float
    """how long an endpoint that leaves may go on with its plans"""
    forget: Callable[[str], None]
    """removes the metrics of an endpoint by name"""


class Endpoints:
    """The endpoints by name: all members of a list, and those of former members that still end their plans."""

    def __init__(self, members: Members, make_supervisor: MakeSupervisor) -> None:
        self._members, self._make_supervisor = members, make_supervisor
        self._supervisors: dict[str, Supervisor] = {}
        self._devices: dict[str, Device] = {}
        self._leaving: dict[str, asyncio.Task[None]] = {}
        self._kept: frozenset[str] = frozenset()
        """those that have left and stay until another one takes plans"""
        self._closing = asyncio.Event()
        self._serving: Serving | None = None
        self._following: VitalTask | None = None

    @property
    def supervisors(self) -> tuple[Supervisor, ...]:
        return tuple(self._supervisors.values())

    async def first_up(self, within_s: float) -> About:
        """Starts the endpoints and returns the first description that a Triton reports. The others are watched.

        Raises the error of our own server when it does not start, and SettingsError when no Triton that answers fits
        this gateway. Retries other Tritons until one answers, and raises ModelDown after `within_s` seconds.
        """
        loop = asyncio.get_running_loop()
        until, told = loop.time() + within_s, ""
        while True:
            await self._members.look()
            for name in self._members.now:
                if name not in self._supervisors:
                    self._supervisors[name] = self._make_supervisor(name)
            owned = any(each.owns_server for each in self.supervisors)
            # our own server has limits of its own
            answered, errors = await _started(self.supervisors, None if owned else max(until - loop.time(), 0.0))
            if answered:
                break
            for error in errors:
                if not isinstance(error, WavserveError) or isinstance(error, SettingsError):
                    raise error  # waiting changes neither our settings nor the version of Triton
                if error.message != told:
                    log.info("waiting for Triton, for %.0f s more: %s", until - loop.time(), error.message)
                told = error.message
            if owned and errors:
                raise errors[0]
            if loop.time() > until or owned:
                why = told or ("it is silent" if self.supervisors else "no address is known of any Triton")
                raise ModelDown(f"triton.urls: no Triton has started within triton.load_s ({within_s:g} s): {why}")
            await asyncio.sleep(CONNECT_RETRY_S)
        for each in self.supervisors:
            if each not in answered:
                each.watch()
        return answered[0].models.about[ARENA_OWNER]

    async def golden_of(self, about: About, spec: PolicySpec, within_s: float = GOLDEN_S) -> Golden | None:
        """The golden plan of the models that gave this description; None: their bundle has none.

        Any Triton that has it may send it. Raises BundleError when it cannot be read, and ModelDown when none has sent
        it within `within_s` seconds.
        """
        if about.golden_digest == "":
            return None
        loop = asyncio.get_running_loop()
        until = loop.time() + within_s
        while True:
            try:
                return unpack(await self._golden(about.golden_digest, max(until - loop.time(), 0.0)), spec)
            except ModelDown as error:
                if loop.time() + CONNECT_RETRY_S > until:
                    raise
                log.info("waiting for the golden plan: %s", error.message)
            await asyncio.sleep(CONNECT_RETRY_S)

    async def _golden(self, digest: str, within_s: float) -> bytes:
        """The golden plan of this digest, from the first Triton that sends it. Raises ModelDown when none does."""
        about = {each: each.models.about.get(ARENA_OWNER) for each in self.supervisors}
        have = [each for each, known in about.items() if known is not None and known.golden_digest == digest]
        asking = [asyncio.create_task(_golden_of(each, within_s)) for each in have]
        failure = ModelDown("the Triton that has it does not answer any more")
        try:
            for answer in asyncio.as_completed(asking):
                try:
                    return await answer
                except ModelDown as error:
                    failure = error
        finally:
            for each in asking:
                each.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        raise failure

    def serve(self, serving: Serving) -> None:
        """From now on every endpoint is a device, and `update` takes up new ones."""
        self._serving = serving
        for name, supervisor in self._supervisors.items():
            self._devices[name] = serving.make_device(supervisor)
            serving.placement.add(self._devices[name])

    def update(self) -> None:
        """Takes up members that have joined, and begins to drain endpoints that have left.

        One that comes back while it is drained is taken up by a later call, when that has ended. The last ones that
        take plans stay until a member is warm, or until they fail.
        """
        assert self._serving is not None, "serve was called"
        members = self._members.now
        gone = self._supervisors.keys() - {*members} - self._leaving.keys()
        for name in gone - self._kept_of(gone, members):
            self._leaving[name] = asyncio.create_task(self._leave(name, self._serving))
        for name in members:
            if name not in self._devices and name not in self._leaving:
                try:
                    self._join(name, self._serving)
                except Exception:
                    log.exception("%s could not be taken up", name)
                    if name in self._devices:  # what has begun ends first
                        self._leaving[name] = asyncio.create_task(self._leave(name, self._serving))

    def _kept_of(self, gone: Set[str], members: Iterable[str]) -> frozenset[str]:
        """The endpoints that have left and are still needed: they take plans, and no member does.

        The log says it once.
        """
        up = {name for name, device in self._devices.items() if device.state is Health.UP}
        kept = frozenset() if up.intersection(members) else frozenset(gone & up)
        for name in sorted(kept - self._kept):
            log.warning("%s has left DNS, and is kept until another Triton takes plans", name)
        self._kept = kept
        return kept

    def follow(self, following: VitalTask) -> None:
        """Hands over the task that calls `update`: it ends with the repairs."""
        self._following = following

    def stop_repairs(self) -> None:
        """Repairs nothing more, and takes up nobody."""
        if self._following is not None:
            self._following.cancel()
        for each in self.supervisors:
            each.drain()

    async def close(self) -> None:
        """Ends every endpoint and its device, also when one cannot be ended. Raises the first error once all have been.

        A device whose batcher is closed already stays so.
        """
        if self._following is not None:
            await self._following.stop()
        self._closing.set()
        await close_all(*self._leaving.values(), *map(self._end, self._supervisors.keys() - self._leaving.keys()))

    async def _end(self, name: str) -> None:
        await _closed(self._supervisors[name], self._devices.get(name))

    def _join(self, name: str, serving: Serving) -> None:
        """Makes an endpoint a device. One that could not be made is made by a later call."""
        if name not in self._supervisors:
            self._supervisors[name] = self._make_supervisor(name)
        supervisor = self._supervisors[name]
        device = self._devices[name] = serving.make_device(supervisor)
        supervisor.watch()
        serving.placement.add(device)

    async def _leave(self, name: str, serving: Serving) -> None:
        """No new plans on an endpoint; after those under way, or `drain_s`, it is closed."""
        supervisor, device = self._supervisors[name], self._devices.get(name)
        supervisor.drain()  # nobody is there to repair, or it is not ours any more
        if device is not None:
            serving.placement.remove(device)
            await self._plans_of(device, serving.drain_s)
        try:
            await _closed(supervisor, device)
        except Exception:
            log.exception("%s could not be closed", name)
        self._devices.pop(name, None)
        del self._supervisors[name], self._leaving[name]
        serving.forget(name)
        log.info("%s is drained", name)

    async def _plans_of(self, device: Device, drain_s: float) -> None:
        """Waits until no plan runs on a device, `drain_s` at most."""
        until = asyncio.get_running_loop().time() + drain_s
        while device.plans and not self._closing.is_set() and asyncio.get_running_loop().time() < until:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):  # no event tells that a plan has ended
                    await self._closing.wait()
        if device.plans:
            log.warning("%s has left: %d plans on it are made again elsewhere", device.name, device.plans)


async def _golden_of(supervisor: Supervisor, within_s: float) -> bytes:
    """The golden plan that a Triton has. Raises ModelDown, which names the Triton."""
    try:
        return await supervisor.backend.golden(within_s)
    except WavserveError as error:
        raise ModelDown(f"{supervisor.name}: {error.message}") from error


async def _started(
    supervisors: Iterable[Supervisor], within_s: float | None
) -> tuple[list[Supervisor], list[BaseException]]:
    """Starts supervisors side by side. Returns those that answer, and the errors of the others.

    Once one has answered, the others have OTHERS_S. Until then they have `within_s`; None: no limit.
    """
    starts = {asyncio.create_task(each.start()): each for each in supervisors}
    try:
        waiting, up = set(starts), False
        while waiting:
            done, waiting = await asyncio.wait(
                waiting, timeout=OTHERS_S if up else within_s, return_when=asyncio.FIRST_COMPLETED
            )
            up = up or any(task.exception() is None for task in done)
            if not done:
                break
    finally:
        for task in starts:
            task.cancel()
        await asyncio.gather(*starts, return_exceptions=True)
    errors = {task: None if task.cancelled() else task.exception() for task in starts}
    answered = [each for task, each in starts.items() if not task.cancelled() and errors[task] is None]
    return answered, [error for error in errors.values() if error is not None]


async def _closed(supervisor: Supervisor, device: Device | None = None) -> None:
    """Ends an endpoint: the calls of its device, its supervisor, its backend; each also when another one cannot be.

    `device` None: it has none.
    """
    async with AsyncExitStack() as stack:
        stack.push_async_callback(supervisor.backend.close)
        stack.push_async_callback(supervisor.close)
        if device is not None:
            stack.push_async_callback(_end_calls, supervisor, device)


async def _end_calls(supervisor: Supervisor, device: Device) -> None:
    """Closes a device's batcher. Plans that still run there get ModelDown, and begin again on another device."""
    closing = asyncio.create_task(device.batcher.close(lambda: ModelDown(f"{supervisor.name} has left the fleet")))
    while not (await asyncio.wait([closing], timeout=LOOK_S))[0]:
        for model in MODELS:
            supervisor.backend.give_up(model)  # a pod that is gone answers no call
    await closing
