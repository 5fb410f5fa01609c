"""The devices behind a service, by the settings' choice: models in this process, in a Triton of ours, or in others.

Part of the composition root, called by `app`. What only one choice needs (torch, Triton's client) is imported there: a
gateway before Tritons has no torch.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from wavserve.app.model_config import model_environment, runner_config, with_dtype
from wavserve.app.settings import Settings
from wavserve.app.settings_sources import inherited_environment, prepare_to_compute
from wavserve.backends.base import Backend
from wavserve.bundle import bundle
from wavserve.bundle.bundle import Bundle
from wavserve.core.errors import SettingsError, WavserveError
from wavserve.core.spec import PolicySpec
from wavserve.core.verbs import VERBS
from wavserve.planning.device import Device, DeviceConfig, Health
from wavserve.policy.placement import Placement
from wavserve.scheduling.batcher import BatcherConfig
from wavserve.system.telemetry import Metrics

if TYPE_CHECKING:
    from wavserve.backends.triton.client import About
    from wavserve.backends.triton.health import Supervisor
    from wavserve.backends.triton.server import TritonServer

log = logging.getLogger(__name__)

RETRY_S = 1.0
SIDE_BY_SIDE = 2
"""Models of a Triton that compute at a time on a CPU, each in a process of its own; on a GPU it is one."""
GPU_DRIVERS = ("/dev/nvidiactl", "/dev/dxg")
"""Where a driver of NVIDIA's shows itself, on Linux and in its Windows subsystem."""
ARENA_OWNER = VERBS["imagine"].model

Close = Callable[[], Awaitable[None]]
Slots = Callable[[], tuple[int, int]]
"""Arena slots used, and slots there are."""
WrapBackend = Callable[[Backend], Backend]
"""Puts something around a device's backend: a fault or a delay, to see how the service bears it."""


def identity(backend: Backend) -> Backend:
    """Nothing around it."""
    return backend


@dataclass(frozen=True, slots=True)
class Fleet:
    """Devices ready to be planned on, and the policy they all serve."""

    spec: PolicySpec
    digest: str
    dtype: str
    """what the models compute in"""
    placement: Placement
    slots: Slots
    closers: Sequence[Close]
    """of what is below the batchers"""

    @property
    def queue_depth(self) -> int:
        return sum(device.batcher.queue_depth for device in self.placement.devices)

    @property
    def remaining_s(self) -> float:
        """Device seconds that plans under way must still have."""
        return sum(device.planner.admission.remaining_s for device in self.placement.devices)

    async def close(self) -> None:
        await asyncio.gather(*(device.batcher.close() for device in self.placement.devices))
        for close in self.closers:
            await close()


async def open_fleet(settings: Settings, metrics: Metrics, wrap_backend: WrapBackend = identity) -> Fleet:
    """Brings up what the settings ask for, with `wrap_backend` around every backend.

    Raises BundleError when the bundle cannot be used, SettingsError when the settings cannot, ModelDown when no Triton
    answers.
    """
    prepare_to_compute()  # before torch is there; a gateway decodes pictures
    kind = settings.backend.kind if settings.backend.kind != "auto" else _choose(settings)
    match kind:
        case "local":
            return await _local(settings, metrics, wrap_backend)
        case "triton-embedded":
            return await _embedded(settings, metrics, wrap_backend)
        case _:
            return await _remote(settings, metrics, wrap_backend)


def _choose(settings: Settings) -> str:
    from wavserve.backends.triton.server import why_not

    obstacle = why_not(settings.triton.repository)
    if obstacle is None:
        log.info("backend.kind auto: triton-embedded, which this machine can run")
        return "triton-embedded"
    log.info("backend.kind auto: local, for no embedded Triton can run here: %s", obstacle)
    return "local"


def open_bundle(settings: Settings) -> Bundle:
    """The bundle the settings name; a preset is made first when it is not there yet."""
    folder = settings.bundle.folder
    if settings.bundle.path is None and not folder.exists():
        from wavserve.models.weights import presets

        log.info("making bundle %s (preset %s, seeded random weights)", folder, settings.bundle.preset)
        try:
            presets.create(settings.bundle.preset, folder, settings.bundle.seed)
        except OSError as error:
            raise SettingsError(f"bundle.root: cannot make {folder}: {error}") from error
    return bundle.load(folder)


async def _local(settings: Settings, metrics: Metrics, wrap_backend: WrapBackend) -> Fleet:
    from wavserve.backends.local import LocalBackend
    from wavserve.models.runners.loading import load_runners

    opened = await asyncio.to_thread(open_bundle, settings)
    settings = await asyncio.to_thread(with_dtype, settings, opened.spec)
    loaded = await asyncio.to_thread(load_runners, opened, runner_config(settings))
    digest = await asyncio.to_thread(bundle.digest, opened.folder)
    backend, book = LocalBackend(loaded.runners, loaded.workers), loaded.arena.book
    size = Size(book.num_slots, loaded.workers, one_call_per_model=False)
    device = _device(settings, opened.spec, wrap_backend(backend), metrics, size)
    placement = Placement([device], settings.limits.repair_s)
    return Fleet(
        opened.spec, digest, settings.backend.dtype, placement, lambda: (book.used, book.num_slots), [backend.close]
    )


async def _embedded(settings: Settings, metrics: Metrics, wrap_backend: WrapBackend) -> Fleet:
    from wavserve.backends.triton.server import ServerConfig, TritonServer, clean_up, new_name, why_not

    repository = settings.triton.repository
    if (obstacle := why_not(repository)) is not None:
        raise SettingsError(f"backend.kind: triton-embedded cannot run here: {obstacle}")
    opened = await asyncio.to_thread(open_bundle, settings)
    settings = await asyncio.to_thread(with_dtype, settings, opened.spec)
    for path in clean_up():
        log.info("removed %s, which a dead process left", path)
    name = new_name()
    environment = inherited_environment() | model_environment(settings, opened.folder, arena_prefix=name)
    at_once = settings.backend.workers or (1 if _may_be_on_gpu(settings.backend.device) else SIDE_BY_SIDE)
    server = TritonServer(ServerConfig(name, repository, environment, settings.triton.shm_bytes, at_once))
    log.info("starting tritonserver; its log is %s", server.log)
    return await _behind_triton(settings, metrics, {"embedded": server}, wrap_backend)


async def _remote(settings: Settings, metrics: Metrics, wrap_backend: WrapBackend) -> Fleet:
    return await _behind_triton(settings, metrics, dict.fromkeys(settings.triton.urls), wrap_backend)


async def _behind_triton(
    settings: Settings, metrics: Metrics, servers: Mapping[str, TritonServer | None], wrap_backend: WrapBackend
) -> Fleet:
    """A fleet of endpoints, by address; with the server where it is ours."""
    from wavserve.backends.triton.client import TritonBackend
    from wavserve.backends.triton.health import Supervisor, WatchConfig

    told = settings.triton
    watch = WatchConfig(told.canary_s, told.hang_s, told.load_s, told.max_repairs)
    health_changed = asyncio.Event()

    def on_traffic(verb: str, sent: Mapping[str, int], received: Mapping[str, int]) -> None:
        metrics.observe_wire(verb, sum(sent.values()), sum(received.values()))

    def supervisor(name: str, backend: TritonBackend, server: TritonServer | None) -> Supervisor:
        def on_change(model: str, up: bool) -> None:
            metrics.observe_model(name, model, up)
            health_changed.set()

        return Supervisor(name, backend, watch, server, on_change)

    backends = {  # ours has no address before it is started
        name: TritonBackend(name if server is None else None, on_traffic=on_traffic) for name, server in servers.items()
    }
    supervisors = [supervisor(name, backends[name], server) for name, server in servers.items()]
    try:
        about = await _first_up(supervisors, told.load_s)
        spec, digest = bundle.parse(about.policy), about.digest
        num_slots = min(each.num_slots for each in supervisors if each.num_slots is not None)
        workers = settings.backend.workers or (SIDE_BY_SIDE if about.device == "cpu" else 1)
        size = Size(num_slots, workers, one_call_per_model=True)
        devices = [_device(settings, spec, wrap_backend(backend), metrics, size) for backend in backends.values()]
    except BaseException:
        await asyncio.gather(*(each.close() for each in supervisors))
        raise
    for device, watched in zip(devices, supervisors, strict=True):
        watched.expect(digest, device.planner.forecast.max_slice)
        device.health = partial(_health, watched)
    placement = Placement(devices, settings.limits.repair_s, health_changed)
    closers = [*(each.close for each in supervisors), *(each.close for each in backends.values())]
    return Fleet(spec, digest, about.dtype, placement, lambda: _slots(supervisors), closers)


async def _first_up(supervisors: Sequence[Supervisor], within_s: float) -> About:
    """Starts them all, and returns what the first that answers says; ours must, others are waited for."""
    loop = asyncio.get_running_loop()
    until, answered = loop.time() + within_s, None
    waiting = list(supervisors)
    while waiting:
        for each in list(waiting):
            try:
                await each.start()
                answered = answered or each.about[ARENA_OWNER]
            except SettingsError:
                raise  # waiting changes neither our settings nor their version
            except WavserveError as error:
                if each.owns_server or loop.time() > until:
                    raise
                log.info("waiting for Triton: %s", error.message)
                continue
            waiting.remove(each)
        if answered is not None:
            break
        await asyncio.sleep(RETRY_S)
    for late in waiting:
        late.watch()
    assert answered is not None
    return answered


def _health(supervisor: Supervisor) -> Health:
    if supervisor.serves_wrong_policy:
        return Health.WRONG_POLICY
    return Health.UP if supervisor.up and supervisor.fits else Health.DOWN


def _may_be_on_gpu(device: str) -> bool:
    """Whether models that choose their own device may find a GPU; a gateway has no torch to ask."""
    return device == "cuda" or (device == "auto" and any(Path(each).exists() for each in GPU_DRIVERS))


def _slots(supervisors: Sequence[Supervisor]) -> tuple[int, int]:
    """As the models said last, up to a canary ago."""
    told = [about.arena for each in supervisors for about in each.about.values() if about.arena is not None]
    return sum(arena["used"] for arena in told), sum(arena["slots"] for arena in told)


class Size(NamedTuple):
    """What a backend can take."""

    num_slots: int
    """which a slice must fit"""
    workers: int
    """calls that run at once"""
    one_call_per_model: bool
    """each of them on another model"""


def device_config(settings: Settings, size: Size) -> DeviceConfig:
    """What plans through a backend of this size, as the settings have it."""
    told, planner, depth = settings.batcher, settings.planner, size.workers + settings.batcher.ready
    return DeviceConfig(
        BatcherConfig(told.max_rows, size.workers, depth, told.slice_s, told.arena_retry_s, size.one_call_per_model),
        min(planner.slice_size, size.num_slots),
        planner.slices_in_flight,
        settings.backend.max_cached_texts,
    )


def _device(settings: Settings, spec: PolicySpec, backend: Backend, metrics: Metrics, size: Size) -> Device:
    """A backend with what plans through it, running."""
    device = Device.over(spec, backend, device_config(settings, size), metrics.observe_call)
    device.batcher.start()
    return device
