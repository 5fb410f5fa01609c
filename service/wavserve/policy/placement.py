"""Which device a plan runs on: the least loaded healthy one, where it stays until it ends.

A plan's features lie in its device's arena, so a plan never moves; when its device fails it starts again elsewhere.
Knows nothing of how a device is repaired.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress

from wavserve.core.errors import NotReady
from wavserve.core.tracing import span
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
        """Whether a device takes plans and none serves another policy: a robot must never meet two by chance."""
        states = [device.state for device in self.devices]
        return Health.UP in states and Health.WRONG_POLICY not in states

    @property
    def fault(self) -> str | None:
        """What is wrong with the plans of a device that therefore gets none; None: nothing is known."""
        return next((each.fault for each in self.devices if each.state is Health.WRONG_PLAN), None)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[Device]:
        """The device for one plan. Raises NotReady when none is healthy within `wait_s`, or at once when draining."""
        with span("placement"):
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
        up = [device for device in self.devices if device.state is Health.UP]
        return min(up, key=lambda device: device.load, default=None)

    def note_change(self) -> None:
        """Tells those that wait for a device that the state of one has changed."""
        self._changed.set()

    async def wait_for_change(self, within_s: float) -> None:
        """Waits until the state of a device may have changed, for `within_s` at most."""
        self._changed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._changed.wait()

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
