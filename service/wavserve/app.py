"""The composition root: settings in, a running service out. The only place that knows every part.

Called by `wavserve serve` and `wavserve plan --replay`. Everything below is handed its small slice; nothing is global.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version

import grpc.aio
import uvicorn

from wavserve import bundle
from wavserve.backends.local import LocalBackend
from wavserve.batcher import Batcher, BatcherConfig
from wavserve.bundle import Bundle
from wavserve.calls import ModelCalls
from wavserve.edge.grpc_api import create_grpc_server
from wavserve.edge.http_api import create_http_app
from wavserve.edge.limits import EdgeLimits
from wavserve.errors import SettingsError
from wavserve.models import presets
from wavserve.models.loading import RunnerConfig, load_runners
from wavserve.pace import Pace
from wavserve.perception import Perception
from wavserve.planner import Planner, SliceConfig
from wavserve.policy import Policy, PolicyParts
from wavserve.records import Recorder
from wavserve.sessions import MemorySessions
from wavserve.settings import Settings
from wavserve.telemetry import Metrics, configure_logging
from wavserve.types import PlanResult

log = logging.getLogger(__name__)

GRACE_S = 5
"""How long answers may take to leave after the plans are done."""


@dataclass(frozen=True, slots=True)
class Service:
    """Everything between the edges and the models, assembled and warm."""

    policy: Policy
    sessions: MemorySessions
    metrics: Metrics
    batcher: Batcher
    backend: LocalBackend

    async def close(self) -> None:
        await self.batcher.close()
        await self.backend.close()


async def assemble(settings: Settings) -> Service:
    """Loads the bundle and puts the parts together; `policy.warm_up` is the caller's next step.

    Raises BundleError when the bundle cannot be used.
    """
    policy_bundle = await asyncio.to_thread(open_bundle, settings)
    loaded = await asyncio.to_thread(load_runners, policy_bundle, _runner_config(settings))
    digest = await asyncio.to_thread(bundle.digest, policy_bundle.folder)
    backend = LocalBackend(loaded.runners, digest)
    metrics = Metrics()
    batcher = Batcher(backend, BatcherConfig(**settings.batcher.model_dump()), on_batch=metrics.observe_call)
    sessions = MemorySessions(**settings.sessions.model_dump())
    policy = Policy(_parts(settings, policy_bundle, digest, batcher, sessions, metrics))
    metrics.watch_queue(lambda: batcher.queue_depth)
    metrics.watch_arena(lambda: loaded.arena.book.used, lambda: loaded.arena.book.num_slots)
    metrics.watch_sessions(lambda: len(sessions))
    metrics.watch_plans(lambda: policy.plans_in_flight)
    batcher.start()
    return Service(policy, sessions, metrics, batcher, backend)


def open_bundle(settings: Settings) -> Bundle:
    """The bundle the settings name; a preset is made first when it is not there yet."""
    folder = settings.bundle.folder
    if settings.bundle.path is None and not folder.exists():
        log.info("making bundle %s (preset %s, seeded random weights)", folder, settings.bundle.preset)
        try:
            presets.create(settings.bundle.preset, folder, settings.bundle.seed)
        except OSError as error:
            raise SettingsError(f"bundle.root: cannot make {folder}: {error}") from error
    return bundle.load(folder)


async def serve(settings: Settings) -> None:
    """Runs both edges until SIGINT or SIGTERM, then drains: no new plans, those under way are answered.

    Raises BundleError and SettingsError (a port in use), and whatever the warm-up plan failed with.
    """
    configure_logging(settings.log.level, settings.log.format)
    http_socket = _listen(settings)
    _check_free(settings)
    service = await assemble(settings)
    http, grpc_server = _edges(settings, service)
    grpc_port = _listen_grpc(settings, grpc_server)
    await grpc_server.start()
    serving = asyncio.create_task(http.serve(sockets=[http_socket]))
    log.info("http://%s:%d, grpc %s:%d", *http_socket.getsockname()[:2], settings.grpc.host, grpc_port)
    try:
        await _until_stopped(service.policy)
    finally:
        await service.policy.drain(settings.limits.drain_s)
        http.should_exit = True
        await asyncio.gather(serving, grpc_server.stop(grace=GRACE_S))
        await service.close()


async def _until_stopped(policy: Policy) -> None:
    """Warms up, says so, and returns on a signal; a signal during the warm-up counts too."""
    stopped = asyncio.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signum, stopped.set)
    stopping = asyncio.create_task(stopped.wait())
    warming = asyncio.create_task(policy.warm_up())
    await asyncio.wait([warming, stopping], return_when=asyncio.FIRST_COMPLETED)
    if warming.done():
        warming.result()
        untrained = "; its weights are random: never run its actions on a robot" if policy.spec.untrained else ""
        log.info("ready: policy %s%s", policy.spec.name, untrained)
        await stopping
    warming.cancel()
    log.info("stopping: %d plans under way", policy.plans_in_flight)


class _HttpServer(uvicorn.Server):
    """uvicorn without its signal handlers: a signal stops both edges, in our order."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _edges(settings: Settings, service: Service) -> tuple[_HttpServer, grpc.aio.Server]:
    limits = EdgeLimits(
        settings.limits.max_body_bytes, settings.limits.max_image_bytes, settings.limits.max_image_pixels
    )
    app = create_http_app(service.policy, limits, service.metrics)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,  # an upload that never ends must not keep the service from ending
    )
    return _HttpServer(config), create_grpc_server(service.policy, limits, service.metrics)


def _runner_config(settings: Settings) -> RunnerConfig:
    backend, arena = settings.backend, settings.arena
    return RunnerConfig(
        backend.device, backend.dtype, backend.threads, arena.num_slots, arena.lease_s, backend.max_cached_texts
    )


def _parts(
    settings: Settings, policy_bundle: Bundle, digest: str, batcher: Batcher, sessions: MemorySessions, metrics: Metrics
) -> PolicyParts:
    spec = policy_bundle.spec
    slices = SliceConfig(min(settings.planner.slice_size, settings.arena.num_slots), settings.planner.slices_in_flight)
    recorder = None if settings.record.folder is None else Recorder(settings.record.folder)

    def observe(result: PlanResult) -> None:
        metrics.observe_plan(result.receipt.iterations_done, result.receipt.deadline.value)
        for stage, seconds in result.receipt.stage_s.items():
            metrics.observe_stage(stage, seconds)

    return PolicyParts(
        spec=spec,
        digest=digest,
        perception=Perception(spec, batcher, settings.backend.max_cached_texts),
        planner=Planner(ModelCalls(spec, batcher), slices, Pace()),
        sessions=sessions,
        max_plans=settings.limits.max_concurrent_plans,
        version=version("wavserve"),
        keep=None if recorder is None else recorder.keep,
        on_plan=observe,
        on_missed=metrics.observe_missed,
    )


def _listen(settings: Settings) -> socket.socket:
    """The HTTP socket, taken before anything is loaded: a port in use is told at once."""
    host, port = settings.http.host, settings.http.port
    # asyncio sets TCP_NODELAY only where it is told that the protocol is TCP; without it every answer waits for 40 ms
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise SettingsError(f"http.port: cannot listen on {host}:{port}: {error.strerror}") from error
    return listener


def _check_free(settings: Settings) -> None:
    """gRPC opens its own socket, but only once the models are loaded: a port in use is told before that."""
    host, port = settings.grpc.host, settings.grpc.port
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise SettingsError(f"grpc.port: cannot listen on {host}:{port}: {error.strerror}") from error


def _listen_grpc(settings: Settings, server: grpc.aio.Server) -> int:
    host, port = settings.grpc.host, settings.grpc.port
    try:
        return server.add_insecure_port(f"{host}:{port}")
    except RuntimeError as error:
        raise SettingsError(f"grpc.port: cannot listen on {host}:{port}: {error}") from error
