"""Opens the devices behind a service: models in this process, in an embedded Triton, or in running Tritons.

Part of the composition root. A package that only one of these needs (torch, Triton's client) is imported where that one
is opened, because a gateway in front of Tritons has no torch.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from wavserve.app import environment
from wavserve.app.device_config import BackendCapacity, device_config
from wavserve.app.model_config import runner_config, with_dtype
from wavserve.app.policy_bundle import open_bundle
from wavserve.app.settings import Settings
from wavserve.backends.base import Backend
from wavserve.bundle import bundle
from wavserve.bundle.golden import Golden
from wavserve.core.spec import PolicySpec
from wavserve.planning.device import Device, Health, ModelState
from wavserve.policy.placement import Placement
from wavserve.system.lookups import Lookups
from wavserve.system.processes import Process
from wavserve.system.telemetry import Metrics
from wavserve.system.vital_tasks import OnDeath, VitalTask, ignore_death

if TYPE_CHECKING:
    from wavserve.backends.local import LocalBackend
    from wavserve.models.arena.arena import Arena

log = logging.getLogger(__name__)

COMPILING_MINUTES = 3
"""How long torch may compile the models of a preset on two cores."""

Close = Callable[[], Coroutine[Any, Any, None]]
Slots = Callable[[], tuple[int, int]]
"""Returns the number of arena slots in use, and the number of all slots."""
WrapBackend = Callable[[Backend], Backend]
"""Wraps a device's backend, for example in a fault or a delay, to test how the service copes with it."""


def identity(backend: Backend) -> Backend:
    """Wraps nothing around the backend."""
    return backend


@dataclass(frozen=True, slots=True)
class Fleet:
    """Devices that are ready for plans, and the policy that all of them serve."""

    spec: PolicySpec
    digest: str
    golden: Golden | None
    kind: str
    """`local`, `triton-embedded` or `triton`"""
    dtype: str
    """numeric type of the models"""
    placement: Placement
    slots: Slots
    memory: Mapping[str, Callable[[], float]]
    """readings of this process's memory where the models are in it; else empty"""
    lookups: Mapping[str, Lookups]
    """of the models' caches where the models are in this process; else empty"""
    stop_repairs: Callable[[], None]
    close: Close
    """closes batchers, supervisors and backends, each also when another one cannot be closed"""

    @property
    def queue_depth(self) -> int:
        return sum(device.batcher.queue_depth for device in self.placement.devices)

    @property
    def queue_age_s(self) -> float:
        """Seconds that the oldest group in a queue has waited."""
        return max((device.batcher.queue_age_s for device in self.placement.devices), default=0.0)

    @property
    def remaining_s(self) -> float:
        """Device seconds that plans under way still need."""
        return sum(device.planner.admission.remaining_s for device in self.placement.devices)


async def open_fleet(
    settings: Settings, metrics: Metrics, wrap_backend: WrapBackend = identity, on_death: OnDeath = ignore_death
) -> Fleet:
    """Opens the devices that the settings ask for, with `wrap_backend` around every backend.

    `on_death` receives the name of a vital task that died: without it the fleet is of no use.

    Raises BundleError for an unusable bundle, SettingsError for unusable settings, ModelDown when no Triton answers.
    """
    environment.prepare_to_compute()  # before torch is imported; also in a gateway, which decodes images
    kind = settings.backend.kind if settings.backend.kind != "auto" else _choose(settings)
    match kind:
        case "local":
            return await _local(settings, metrics, wrap_backend, on_death)
        case "triton-embedded":
            from wavserve.app.triton_fleet import open_embedded

            return await open_embedded(settings, metrics, wrap_backend, on_death)
        case _:
            from wavserve.app.triton_fleet import open_remote

            return await open_remote(settings, metrics, wrap_backend, on_death)


def _choose(settings: Settings) -> str:
    from wavserve.backends.triton.wheel import find_obstacle

    obstacle = find_obstacle(settings.triton.repository)
    if obstacle is None:
        log.info("backend.kind auto: triton-embedded")
        return "triton-embedded"
    log.info("backend.kind auto: local, because an embedded Triton cannot run here: %s", obstacle)
    return "local"


async def _local(settings: Settings, metrics: Metrics, wrap_backend: WrapBackend, on_death: OnDeath) -> Fleet:
    from wavserve.backends.local import LocalBackend
    from wavserve.models import memory
    from wavserve.models.runners.loading import load_runners, lookups_of

    opened = await asyncio.to_thread(open_bundle, settings.bundle)
    settings = await asyncio.to_thread(with_dtype, settings, opened.spec)
    announce_loading(settings)
    loaded = await asyncio.to_thread(load_runners, opened, runner_config(settings))
    digest = await asyncio.to_thread(bundle.digest, opened.folder)
    changed = asyncio.Event()
    backend, book = LocalBackend(loaded.runners, loaded.workers, changed.set), loaded.arena.book
    size = BackendCapacity(book.num_slots, loaded.workers, one_call_per_model=False)
    device = make_device(settings, opened.spec, wrap_backend(backend), metrics, size)
    async with AsyncExitStack() as closing:
        closing.push_async_callback(watch_local(device, backend, settings.triton.hang_s, on_death).stop)
        closing.push_async_callback(backend.close)  # a call that hangs holds it up until the watch dies
        device.batcher.start(on_death)
        placement = Placement([device], settings.limits.repair_s, changed)
        closing.push_async_callback(placement.close)
        held = await asyncio.to_thread(memory.readings, loaded.arena.device, loaded.arena)
        device.models = partial(_local_models, loaded.arena, held, device)
        return Fleet(
            spec=opened.spec,
            digest=digest,
            golden=opened.golden,
            kind="local",
            dtype=settings.backend.dtype,
            placement=placement,
            slots=lambda: (book.used, book.num_slots),
            memory=held,
            lookups={name: each for runner in loaded.runners.values() for name, each in lookups_of(runner).items()},
            stop_repairs=lambda: None,
            close=closing.pop_all().aclose,
        )


def _local_models(arena: Arena, held: Mapping[str, Callable[[], float]], device: Device) -> tuple[ModelState, ...]:
    """All models of this process as one. `held`: readings of its memory."""
    memory, slots = {name: read() for name, read in held.items()}, (arena.book.used, arena.book.num_slots)
    up = device.health() is Health.UP
    return (ModelState("all", up, os.getpid(), arena.device.type, memory=memory, arena=slots),)


def watch_local(device: Device, backend: LocalBackend, hang_s: float, on_death: OnDeath) -> VitalTask:
    """Takes a device down while a call in this process stands still; after `hang_s` of that, the watch dies."""
    device.health = lambda: Health.UP if backend.up else Health.DOWN
    device.batcher.on_stuck = backend.on_stuck
    device.batcher.stuck_calls.process_of = lambda model: Process.me()
    return VitalTask(backend.watch(hang_s), "the runner of the models", on_death)


def announce_loading(settings: Settings) -> None:
    """The first start is silent for minutes otherwise."""
    if settings.backend.compile == "off":
        log.info("loading the models")
        return
    log.info(
        "loading the models, and compiling them for this machine: the first start may take %d minutes, and later ones "
        "find the compiled code on disk",
        COMPILING_MINUTES,
    )


def make_device(
    settings: Settings, spec: PolicySpec, backend: Backend, metrics: Metrics, size: BackendCapacity
) -> Device:
    """A device over a backend. Its batcher is not started yet."""
    device = Device.over(spec, backend, device_config(settings, size), metrics.calls.called)
    device.perception.on_lookup = partial(metrics.calls.looked_up, "instruction")
    return device
