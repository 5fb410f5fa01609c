"""The Triton endpoints of a fleet, which join and leave while the service runs: their supervisors and devices.

Part of the composition root. Knows neither settings nor how a supervisor or a device is made.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wavserve.app.members import Members
from wavserve.bundle.golden import Golden, unpack
from wavserve.core.errors import ModelDown, SettingsError, WavserveError
from wavserve.core.spec import PolicySpec
from wavserve.core.verbs import ARENA_OWNER, MODELS
from wavserve.planning.device import Device
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
"""Seconds within which a Triton must send its golden plan."""
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
        self._serving: Serving | None = None
        self._following: VitalTask | None = None

    @property
    def supervisors(self) -> tuple[Supervisor, ...]:
        return tuple(self._supervisors.values())

    async def first_up(self, within_s: float) -> About:
        """Starts the endpoints and returns the first description that a Triton reports. The others are watched.

        Raises the error of our own server when it does not start, and SettingsError when no Triton that answers fits
        this gateway. Retries other Tritons until one answers, and raises the error of one after `within_s` seconds.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + within_s
        while True:
            await self._members.look()
            for name in self._members.now:
                if name not in self._supervisors:
                    self._supervisors[name] = self._make_supervisor(name)
            answered, errors = await _started(self.supervisors)
            if answered:
                break
            for error in errors:
                if not isinstance(error, WavserveError) or isinstance(error, SettingsError):
                    raise error  # waiting changes neither our settings nor the version of Triton
                log.info("waiting for Triton: %s", error.message)
            if loop.time() > until or any(each.owns_server for each in self.supervisors):
                raise errors[0] if errors else ModelDown("triton.urls: no address is known of any Triton")
            await asyncio.sleep(CONNECT_RETRY_S)
        for each in self.supervisors:
            if each not in answered:
                each.watch()
        return answered[0].models.about[ARENA_OWNER]

    async def golden_of(self, about: About, spec: PolicySpec) -> Golden | None:
        """The golden plan of the models that gave this description."""
        for each in self.supervisors:
            known = each.models.about.get(ARENA_OWNER)
            if known is not None and known.golden_digest == about.golden_digest != "":
                return unpack(await each.backend.golden(GOLDEN_S), spec)
        return None

    def serve(self, serving: Serving) -> None:
        """From now on every endpoint is a device, and `update` takes up new ones."""
        self._serving = serving
        for name, supervisor in self._supervisors.items():
            self._devices[name] = serving.make_device(supervisor)
            serving.placement.add(self._devices[name])

    def update(self) -> None:
        """Takes up members that have joined, and begins to drain endpoints that have left.

        One that comes back while it is drained is taken up by a later call, when that has ended.
        """
        assert self._serving is not None, "serve was called"
        members = self._members.now
        for name in self._supervisors.keys() - {*members} - self._leaving.keys():
            self._leaving[name] = asyncio.create_task(self._leave(name, self._serving))
        for name in members:
            if name not in self._supervisors:
                self._supervisors[name] = self._make_supervisor(name)
                self._devices[name] = self._serving.make_device(self._supervisors[name])
                self._supervisors[name].watch()
                self._serving.placement.add(self._devices[name])

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
        """Ends everything: supervisors, then backends. The batchers of devices in the placement are closed already."""
        if self._following is not None:
            await self._following.stop()
        for task in self._leaving.values():
            task.cancel()
        await asyncio.gather(*self._leaving.values(), return_exceptions=True)
        await asyncio.gather(*(_end_calls(self._supervisors[name], self._devices[name]) for name in self._leaving))
        await asyncio.gather(*(each.close() for each in self.supervisors))
        await asyncio.gather(*(each.backend.close() for each in self.supervisors))

    async def _leave(self, name: str, serving: Serving) -> None:
        """No new plans on an endpoint; after those under way, or `drain_s`, it is closed."""
        supervisor, device = self._supervisors[name], self._devices[name]
        serving.placement.remove(device)
        supervisor.drain()  # nobody is there to repair, or it is not ours any more
        until = asyncio.get_running_loop().time() + serving.drain_s
        while device.plans and asyncio.get_running_loop().time() < until:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(LOOK_S)
        if device.plans:
            log.warning("%s has left: %d plans on it are made again elsewhere", name, device.plans)
        try:
            await _end_calls(supervisor, device)
            await supervisor.close()
            await supervisor.backend.close()
        except Exception:
            log.exception("%s could not be closed", name)
        serving.forget(name)
        del self._supervisors[name], self._devices[name], self._leaving[name]
        log.info("%s is drained", name)


async def _started(supervisors: Iterable[Supervisor]) -> tuple[list[Supervisor], list[BaseException]]:
    """Starts supervisors side by side. Returns those that answer, and the errors of the others.

    Once one has answered, the others have OTHERS_S.
    """
    starts = {asyncio.create_task(each.start()): each for each in supervisors}
    try:
        waiting, up = set(starts), False
        while waiting:
            done, waiting = await asyncio.wait(
                waiting, timeout=OTHERS_S if up else None, return_when=asyncio.FIRST_COMPLETED
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


async def _end_calls(supervisor: Supervisor, device: Device) -> None:
    """Closes a device's batcher. Plans that still run there get ModelDown, and begin again on another device."""
    closing = asyncio.create_task(device.batcher.close(lambda: ModelDown(f"{supervisor.name} has left the fleet")))
    while not (await asyncio.wait([closing], timeout=LOOK_S))[0]:
        for model in MODELS:
            supervisor.backend.give_up(model)  # a pod that is gone answers no call
    await closing
