"""Which device a plan runs on: the least loaded healthy one, where it stays until it ends.

A plan's features lie in its device's arena, so a plan never moves; when its device fails it starts again elsewhere.
Knows nothing of how a device is repaired.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from wavserve.core.errors import NotReady
from wavserve.planning.device import Device, Health


class Placement:
    """The devices of a service."""

    def __init__(self, devices: Iterable[Device], wait_s: float, changed: asyncio.Event | None = None) -> None:
        """`wait_s`: how long a plan waits for a device's repair; `changed` is set when a device's health changes."""
        self.devices = tuple(devices)
        self._wait_s = wait_s
        self._changed = changed or asyncio.Event()
        self.draining = False

    @property
    def ready(self) -> bool:
        """Whether a device is up and none serves another policy: a robot must never meet two policies by chance."""
        healths = [device.health() for device in self.devices]
        return Health.UP in healths and Health.WRONG_POLICY not in healths

    @asynccontextmanager
    async def place(self) -> AsyncIterator[Device]:
        """The device for one plan. Raises NotReady when none is healthy within `wait_s`, or at once when draining."""
        device = await self._pick()
        device.plans += 1
        try:
            yield device
        finally:
            device.plans -= 1

    def drain(self) -> None:
        """From now on no plan waits for a repair, because none comes. Those that wait get NotReady."""
        self.draining = True
        self._changed.set()

    def least_loaded(self) -> Device | None:
        """The device that would get a plan now; None while no device is up."""
        up = [device for device in self.devices if device.health() is Health.UP]
        return min(up, key=lambda device: device.load, default=None)

    async def _pick(self) -> Device:
        try:
            async with asyncio.timeout(self._wait_s):
                while (device := self.least_loaded()) is None:
                    if self.draining:
                        raise NotReady("the service is stopping and has no working models")
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise NotReady("no device with working models; they are being repaired") from None
        return device
