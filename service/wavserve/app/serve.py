"""Builds the service from the settings and runs it.

The centre of the composition root; `fleet` opens the devices, and `triton_entry` builds a model's own process. Every
part gets only its own slice of the settings. Nothing is global.
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
from wavserve.system.processes import STOP_SIGNALS
from wavserve.system.telemetry import Metrics, configure_logging

log = logging.getLogger(__name__)

T = TypeVar("T")

GRACE_S = 5
"""Seconds in which the last answers may be sent after the plans have ended."""


@dataclass(frozen=True, slots=True)
class Service:
    """Everything between the edges and the models, assembled."""

    policy: Policy
    sessions: MemorySessions
    metrics: Metrics
    fleet: Fleet

    async def close(self) -> None:
        await self.fleet.close()


async def assemble(settings: Settings, wrap_backend: WrapBackend = identity) -> Service:
    """Opens the models and connects the parts. The caller then calls `policy.warm_up`.

    `wrap_backend` wraps each device's backend. Raises what `open_fleet` raises.
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
    """Runs both edges until SIGINT, SIGTERM or SIGHUP, then drains: it refuses new plans and answers those under way.

    Raises BundleError, SettingsError (a port in use), and the error of a warm-up plan that failed.
    """
    configure_logging(settings.log.level, settings.log.format)
    http_socket = _listen(settings)
    _check_grpc_port(settings)
    stopped = _on_signal()
    service = await _run_until(stopped, assemble(settings, wrap_backend))
    if service is None:
        return
    try:
        await _serve(settings, service, http_socket, stopped)
    finally:
        await service.close()
        _ignore_signals()


async def _serve(settings: Settings, service: Service, http_socket: socket.socket, stopped: asyncio.Event) -> None:
    """Runs both edges of a service until a signal."""
    http, grpc_server = _edges(settings, service)
    grpc_port = _listen_grpc(settings, grpc_server)
    await grpc_server.start()
    serving = asyncio.create_task(http.serve(sockets=[http_socket]))
    log.info("http://%s:%d, grpc %s:%d", *http_socket.getsockname()[:2], settings.grpc.host, grpc_port)
    policy = service.policy
    try:
        await _run_until(stopped, policy.warm_up())
        if policy.warm:
            gc.collect()
            gc.freeze()  # keeps loaded objects out of later collections, which would block the loop
            untrained = "; its weights are random: never run its actions on a robot" if policy.spec.untrained else ""
            log.info("ready: policy %s%s", policy.spec.name, untrained)
        await stopped.wait()
        log.info("stopping: %d plans under way", policy.plans_in_flight)
    finally:
        service.fleet.stop_repairs()
        await policy.drain(settings.limits.drain_s)
        http.should_exit = True
        await asyncio.gather(serving, grpc_server.stop(grace=GRACE_S))


def _on_signal() -> asyncio.Event:
    """An event that each of STOP_SIGNALS sets from now on, unless it is ignored already, as SIGHUP below `nohup`."""
    stopped = asyncio.Event()
    for signum in STOP_SIGNALS:
        if signal.getsignal(signum) is not signal.SIG_IGN:
            asyncio.get_running_loop().add_signal_handler(signum, stopped.set)
    return stopped


def _ignore_signals() -> None:
    """Ignores STOP_SIGNALS until the process exits: one that comes so late must not change the exit code."""
    for signum in STOP_SIGNALS:
        asyncio.get_running_loop().remove_signal_handler(signum)
        signal.signal(signum, signal.SIG_IGN)


async def _run_until(stopped: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """The result of `work`. When `stopped` is set first, cancels `work`, waits for its clean-up and returns None."""
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
        max_body_bytes=settings.limits.max_body_bytes,
        max_image_bytes=settings.limits.max_image_bytes,
        max_image_pixels=settings.limits.max_image_pixels,
    )
    app = create_http_app(service.policy, limits, service.metrics)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,  # an endless upload must not keep the service alive
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
        on_refused=metrics.observe_refused,
    )


def _listen(settings: Settings) -> socket.socket:
    """Binds the HTTP socket before anything is loaded, so that a port in use is reported at once."""
    host, port = settings.http.host, settings.http.port
    # asyncio sets TCP_NODELAY only on a socket whose protocol is stated as TCP. Without it every answer waits 40 ms.
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))  # uvicorn listens on it later, when the models are loaded
    except OSError as error:
        listener.close()
        raise SettingsError(f"http.port: cannot listen on {host}:{port}: {error.strerror}") from error
    return listener


def _check_grpc_port(settings: Settings) -> None:
    """Raises SettingsError at once for a gRPC port in use. gRPC opens its own socket after the models are loaded."""
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
