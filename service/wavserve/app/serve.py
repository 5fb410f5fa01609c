"""The composition root: settings in, a running service out. The only place that knows every part.

Called by `wavserve serve` and `wavserve plan --replay`. Everything below is handed its small slice; nothing is global.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import socket
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any, TypeVar

import grpc.aio
import uvicorn

from wavserve.app.fleet import Fleet, WrapBackend, identity, open_fleet
from wavserve.app.settings import Settings
from wavserve.core.errors import SettingsError
from wavserve.core.messages import ActionChunk
from wavserve.edge.grpc.plan import create_grpc_server
from wavserve.edge.http.api import create_http_app
from wavserve.edge.limits import EdgeLimits
from wavserve.policy.policy import Policy, PolicyParts
from wavserve.policy.records import Recorder
from wavserve.policy.sessions import MemorySessions
from wavserve.system.telemetry import Metrics, configure_logging

log = logging.getLogger(__name__)

T = TypeVar("T")

GRACE_S = 5
"""How long answers may take to leave after the plans are done."""


@dataclass(frozen=True, slots=True)
class Service:
    """Everything between the edges and the models, assembled and warm."""

    policy: Policy
    sessions: MemorySessions
    metrics: Metrics
    fleet: Fleet

    async def close(self) -> None:
        await self.fleet.close()


async def assemble(settings: Settings, wrap_backend: WrapBackend = identity) -> Service:
    """Brings up the models and puts the parts together; `policy.warm_up` is the caller's next step.

    `wrap_backend` puts something around each device's backend. Raises as `open_fleet` does.
    """
    metrics = Metrics()
    recorder = None if settings.record.folder is None else Recorder(settings.record.folder)
    sessions = MemorySessions(**settings.sessions.model_dump())
    fleet = await open_fleet(settings, metrics, wrap_backend)
    log.info("the models compute in %s", fleet.dtype)
    policy = Policy(_parts(settings, fleet, sessions, metrics, recorder))
    metrics.watch_queue(lambda: fleet.queue_depth)
    metrics.watch_remaining(lambda: fleet.remaining_s)
    metrics.watch_arena(lambda: fleet.slots()[0], lambda: fleet.slots()[1])
    metrics.watch_sessions(lambda: len(sessions))
    metrics.watch_plans(lambda: policy.plans_in_flight)
    return Service(policy, sessions, metrics, fleet)


async def serve(settings: Settings, wrap_backend: WrapBackend = identity) -> None:
    """Runs both edges until SIGINT or SIGTERM, then drains: no new plans, those under way are answered.

    Raises BundleError and SettingsError (a port in use), and whatever the warm-up plan failed with.
    """
    configure_logging(settings.log.level, settings.log.format)
    http_socket = _listen(settings)
    _check_free(settings)
    stopped = _on_signal()
    service = await _unless(stopped, assemble(settings, wrap_backend))
    if service is None:
        return
    try:
        await _serve(settings, service, http_socket, stopped)
    finally:
        await service.close()


async def _serve(settings: Settings, service: Service, http_socket: socket.socket, stopped: asyncio.Event) -> None:
    """Both edges of a running service, until a signal."""
    http, grpc_server = _edges(settings, service)
    grpc_port = _listen_grpc(settings, grpc_server)
    await grpc_server.start()
    serving = asyncio.create_task(http.serve(sockets=[http_socket]))
    log.info("http://%s:%d, grpc %s:%d", *http_socket.getsockname()[:2], settings.grpc.host, grpc_port)
    policy = service.policy
    try:
        await _unless(stopped, policy.warm_up())
        if policy.warm:
            # what is loaded now stays: a collector that looks at all of it each time stops the loop for long, and comes
            # seldom, so that what requests leave piles up meanwhile
            gc.collect()
            gc.freeze()
            untrained = "; its weights are random: never run its actions on a robot" if policy.spec.untrained else ""
            log.info("ready: policy %s%s", policy.spec.name, untrained)
        await stopped.wait()
        log.info("stopping: %d plans under way", policy.plans_in_flight)
    finally:
        await policy.drain(settings.limits.drain_s)
        http.should_exit = True
        await asyncio.gather(serving, grpc_server.stop(grace=GRACE_S))


def _on_signal() -> asyncio.Event:
    """Set by SIGINT or SIGTERM, from now on."""
    stopped = asyncio.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signum, stopped.set)
    return stopped


async def _unless(stopped: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """The work's result; None when it was stopped before its end, and then it has cleaned up."""
    working, stopping = asyncio.create_task(work), asyncio.create_task(stopped.wait())
    await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if working.done():
        return working.result()
    working.cancel()
    await asyncio.wait([working])
    return None


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


def _parts(
    settings: Settings, fleet: Fleet, sessions: MemorySessions, metrics: Metrics, recorder: Recorder | None
) -> PolicyParts:
    def observe(chunk: ActionChunk) -> None:
        metrics.observe_plan(chunk.receipt.iterations_done, chunk.receipt.deadline.value)
        for stage, seconds in chunk.receipt.stage_s.items():
            metrics.observe_stage(stage, seconds)

    return PolicyParts(
        spec=fleet.spec,
        digest=fleet.digest,
        placement=fleet.placement,
        sessions=sessions,
        max_plans=settings.limits.max_concurrent_plans,
        version=version("wavserve"),
        keep=None if recorder is None else partial(recorder.keep, dtype=fleet.dtype),
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
        listener.bind((host, port))  # not listened on before there is somebody to answer
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
