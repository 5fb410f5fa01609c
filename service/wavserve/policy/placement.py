"""Which device a plan runs on: the least loaded healthy one that this service prefers, where it stays until it ends.

A plan's features lie in its device's arena, so a plan never moves; when its device fails it starts again elsewhere.
Other services may use the same devices, and their plans are not seen here: so each prefers its share of them, and takes
another device only when its own cannot keep a plan's deadline. Knows nothing of how a device is repaired.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

from wavserve.core.closing import close_all
from wavserve.core.errors import DeadlineExceeded, NotReady, Overloaded
from wavserve.core.tracing import span
from wavserve.planning.device import Device, Health

T = TypeVar("T")

Prefer = Callable[[Sequence[str]], tuple[Sequence[str], Sequence[str]]]
"""Divides the names of devices into those of this service's share and the others, each from the best to the worst."""


def all_alike(names: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """A `Prefer` of a service that has its devices to itself."""
    return names, ()


def first_to_admit(choices: Sequence[Device], admit: Callable[[Device], T]) -> tuple[Device, T]:
    """The first device that admits a plan, and what `admit` returned for it.

    When none does, raises what the first one raised: Overloaded or DeadlineExceeded. A robot that is beyond its share
    on one device gets no other.
    """
    refusal: DeadlineExceeded | Overloaded | None = None
    for device in choices:
        try:
            return device, admit(device)
        except (DeadlineExceeded, Overloaded) as error:
            refusal = refusal or error
            if isinstance(error, Overloaded) and error.reason != "device_time":
                break
    assert refusal is not None, "there was a device"
    raise refusal


class Placement:
    """The devices of a service."""

    def __init__(
        self,
        devices: Iterable[Device],
        wait_s: float,
        changed: asyncio.Event | None = None,
        prefer: Prefer = all_alike,
    ) -> None:
        """`wait_s`: how long a plan waits for a device's repair; `changed` is set when a device's health changes."""
        self.devices = tuple(devices)
        self._prefer = prefer
        self._preparations: list[Callable[[Device], None]] = []
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

    def with_each(self, prepare: Callable[[Device], None]) -> None:
        """Prepares every device, and from now on each that joins before plans may run on it."""
        for device in self.devices:
            prepare(device)
        self._preparations.append(prepare)

    def add(self, device: Device) -> None:
        """From now on plans may run on it, once it is warm."""
        for prepare in self._preparations:
            prepare(device)
        self.devices += (device,)
        self.note_change()

    def remove(self, device: Device) -> None:
        """From now on no plan begins on it. Those under way go on."""
        self.devices = tuple(each for each in self.devices if each is not device)
        self.note_change()

    @asynccontextmanager
    async def place(self, admit: Callable[[Device], T]) -> AsyncIterator[tuple[Device, T]]:
        """The device for one plan, and what `admit` returned for it.

        Raises as `first_to_admit`; NotReady when no device is healthy within `wait_s`, or at once when draining.
        """
        with span("placement"):
            choices = await self._choices_soon()
        device, admitted = first_to_admit(choices, admit)
        device.plans += 1
        try:
            yield device, admitted
        finally:
            device.plans -= 1

    def drain(self) -> None:
        """From now on no plan waits for a repair, because none comes. Those that wait get NotReady."""
        self.draining = True
        self._changed.set()

    async def close(self) -> None:
        """Closes the batcher of every device, also when another one cannot be closed. Raises the first error."""
        await close_all(*(device.batcher.close() for device in self.devices))

    def choices(self) -> tuple[Device, ...]:
        """The devices that a plan may get now, best first; none while no device is up.

        They are the least loaded device of this service's share, and the least loaded of the others.
        """
        up = [device for device in self.devices if device.state is Health.UP]
        groups = self._prefer(tuple(device.name for device in up))
        rank = {name: (group, place) for group, names in enumerate(groups) for place, name in enumerate(names)}
        best: dict[int, Device] = {}
        for device in sorted(up, key=lambda device: (device.load, rank[device.name])):
            best.setdefault(rank[device.name][0], device)
        return tuple(best[group] for group in sorted(best))

    def note_change(self) -> None:
        """Tells those that wait for a device that the state of one has changed."""
        self._changed.set()

    async def wait_for_change(self, within_s: float) -> None:
        """Waits until the state of a device may have changed, for `within_s` at most."""
        self._changed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._changed.wait()

    async def _choices_soon(self) -> tuple[Device, ...]:
        try:
            async with asyncio.timeout(self._wait_s):
                while not (choices := self.choices()):
                    if self.draining:
                        raise NotReady("the service is stopping and has no working models")
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise NotReady("no device with working models; they are being repaired") from None
        return choices
