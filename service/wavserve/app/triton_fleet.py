"""Opens the devices of a service with its models in Triton: one that this process starts, or those that run elsewhere.

Part of the composition root. A service with its models in its own process imports none of this.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from wavserve.app import endpoint_state, environment
from wavserve.app.device_config import BackendCapacity
from wavserve.app.endpoints import Endpoints, MakeSupervisor, Serving
from wavserve.app.fleet import Fleet, WrapBackend, announce_loading, make_device
from wavserve.app.gateways import share_of
from wavserve.app.members import Members, follow
from wavserve.app.model_config import model_environment, with_dtype
from wavserve.app.policy_bundle import open_bundle
from wavserve.app.settings import Settings, TritonSettings
from wavserve.bundle import bundle
from wavserve.core.errors import SettingsError
from wavserve.core.verbs import MODELS
from wavserve.planning.device import Device
from wavserve.policy.placement import Placement
from wavserve.system.telemetry import Metrics
from wavserve.system.vital_tasks import OnDeath, VitalTask

if TYPE_CHECKING:
    from wavserve.backends.triton.client import About
    from wavserve.backends.triton.health import Supervisor
    from wavserve.backends.triton.server import TritonServer

log = logging.getLogger(__name__)

MODELS_AT_ONCE_ON_CPU = 2
"""Models of one Triton that compute at the same time on a CPU, each in its own process. On a GPU it is one."""
GPU_DRIVERS = ("/dev/nvidiactl", "/dev/dxg")
"""Device files of NVIDIA's driver, on Linux and in the Windows Subsystem for Linux."""


async def open_embedded(settings: Settings, metrics: Metrics, wrap_backend: WrapBackend, on_death: OnDeath) -> Fleet:
    """A fleet of one Triton, which this process starts. Raises as `open_fleet`."""
    from wavserve.backends.triton.server import ServerConfig, TritonServer, new_name, remove_orphans
    from wavserve.backends.triton.wheel import find_obstacle

    repository = settings.triton.repository
    if (obstacle := find_obstacle(repository)) is not None:
        raise SettingsError(f"backend.kind: triton-embedded cannot run here: {obstacle}")
    opened = await asyncio.to_thread(open_bundle, settings.bundle)
    settings = await asyncio.to_thread(with_dtype, settings, opened.spec)
    for path in remove_orphans():
        log.info("removed %s, left by a dead process", path)
    name = new_name()
    variables = environment.inherited() | model_environment(settings, opened.folder, arena_prefix=name)
    at_once = settings.backend.workers or (1 if _may_be_on_gpu(settings.backend.device) else MODELS_AT_ONCE_ON_CPU)
    config = ServerConfig(
        name,
        repository,
        variables,
        shm_bytes=settings.triton.shm_bytes,
        models_at_once=at_once,
        metrics_port=settings.triton.metrics_port,
        traces=settings.tracing.endpoint or "",
    )
    server = TritonServer(config)
    log.info("starting tritonserver; its log is %s", server.log)
    announce_loading(settings)
    return await _opened(settings, metrics, wrap_backend, on_death, server)


async def open_remote(settings: Settings, metrics: Metrics, wrap_backend: WrapBackend, on_death: OnDeath) -> Fleet:
    """A fleet of the Tritons that run elsewhere, as `triton.urls` names them. Raises as `open_fleet`."""
    return await _opened(settings, metrics, wrap_backend, on_death, None)


async def _opened(
    settings: Settings, metrics: Metrics, wrap_backend: WrapBackend, on_death: OnDeath, server: TritonServer | None
) -> Fleet:
    """A fleet of Tritons: `server`, or those of `triton.urls`."""
    triton, changed, trouble = settings.triton, asyncio.Event(), asyncio.Event()
    gateways = share_of(triton)
    members = Members(triton.urls if server is None else ["embedded"], gateways.me, on_lookup=metrics.calls.resolved)

    def on_health(up: bool) -> None:
        changed.set()
        if not up:
            trouble.set()

    endpoints = Endpoints(members, _supervisors(triton, metrics, server, on_health, on_death))
    async with AsyncExitStack() as opened:
        opened.push_async_callback(endpoints.close)
        about = await endpoints.first_up(triton.load_s)
        spec, digest = bundle.parse(about.policy), about.digest
        golden = await endpoints.golden_of(about, spec)
        await gateways.members.look()
        size = _capacity(settings, about, endpoints)

        def device_over(watched: Supervisor) -> Device:
            device = make_device(settings, spec, wrap_backend(watched.backend), metrics, size)
            connected(device, watched, digest).batcher.start(on_death)
            return device

        placement = Placement([], settings.limits.repair_s, changed, gateways)
        opened.push_async_callback(placement.close)
        endpoints.serve(Serving(placement, device_over, settings.limits.drain_s, metrics.calls.forget))
        if followed := [each for each in (members, gateways.members) if not each.are_fixed]:
            looking = follow(followed, triton.discovery_s, trouble, endpoints.update)
            endpoints.follow(VitalTask(looking, "the discovery of Tritons", on_death))
        return Fleet(
            spec=spec,
            digest=digest,
            golden=golden,
            kind="triton" if server is None else "triton-embedded",
            dtype=about.dtype,
            placement=placement,
            slots=lambda: endpoint_state.slots(endpoints.supervisors),
            memory={},
            lookups={},
            stop_repairs=endpoints.stop_repairs,
            close=opened.pop_all().aclose,
        )


def _capacity(settings: Settings, about: About, endpoints: Endpoints) -> BackendCapacity:
    """What every device can do: the arena of each must hold a slice."""
    num_slots = min(each.models.num_slots for each in endpoints.supervisors if each.models.num_slots is not None)
    workers = settings.backend.workers or (MODELS_AT_ONCE_ON_CPU if about.device == "cpu" else 1)
    return BackendCapacity(num_slots, workers, one_call_per_model=True)


def connected(device: Device, watched: Supervisor, digest: str) -> Device:
    """A device over an endpoint, which its supervisor and the device are told. `digest`: of the policy to serve."""
    watched.models.expect(digest, device.planner.forecast.max_slice)
    device.name = watched.name
    device.health = partial(endpoint_state.health, watched)
    device.generation = partial(endpoint_state.generation, watched)
    device.models = partial(endpoint_state.models, watched)
    device.batcher.on_stuck = watched.on_stuck
    device.batcher.stuck_calls.process_of = watched.models.process_of
    return device


def _supervisors(
    settings: TritonSettings,
    metrics: Metrics,
    server: TritonServer | None,
    on_health: Callable[[bool], None],
    on_death: OnDeath,
) -> MakeSupervisor:
    """Makes the supervisor of an endpoint by its name, over a backend of its own. It is not started yet.

    `on_health` is told when a model goes up or down. `server`: the process behind it, where this process starts it.
    """
    from wavserve.backends.triton.client import TritonBackend
    from wavserve.backends.triton.health import Supervisor, WatchConfig

    watch = WatchConfig(
        canary_s=settings.canary_s, hang_s=settings.hang_s, load_s=settings.load_s, max_repairs=settings.max_repairs
    )

    def on_traffic(verb: str, sent: Mapping[str, int], received: Mapping[str, int]) -> None:
        metrics.calls.sent(verb, sum(sent.values()), sum(received.values()))

    def watched(name: str) -> Supervisor:
        def on_change(model: str, up: bool) -> None:
            metrics.calls.model(name, model, up)
            on_health(up)

        target = name if server is None else None  # an embedded server has no address before it starts
        backend = TritonBackend(target, on_traffic=on_traffic, proxy=settings.proxy)
        supervisor = Supervisor(name, backend, watch, server, on_change, on_death)
        supervisor.on_repair = partial(metrics.calls.repaired, name)
        for model in MODELS:
            metrics.calls.model(name, model, False)  # one that never comes up is shown too
        return supervisor

    return watched


def _may_be_on_gpu(device: str) -> bool:
    """Whether models that choose their own device may find a GPU. A gateway has no torch that could answer this."""
    return device == "cuda" or (device == "auto" and any(Path(each).exists() for each in GPU_DRIVERS))
