"""Runs the service: binds its addresses, assembles it, and runs both edges until it ends.

The centre of the composition root. `service` assembles what is between the edges and the models, and `edges` builds the
edges.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from contextlib import closing
from dataclasses import replace

from wavserve.app.edges import GRACE_S, Listening, bind_all, open_edges
from wavserve.app.ending import Ending
from wavserve.app.fleet import WrapBackend, identity
from wavserve.app.listeners import allow_restart, hand_over
from wavserve.app.service import Service, assemble
from wavserve.app.settings import Settings
from wavserve.app.tracing import open_trail
from wavserve.core.closing import close_all
from wavserve.edge.http.server import throttle_accept_errors
from wavserve.edge.trail import Trail
from wavserve.system.log_lines import configure_logging
from wavserve.system.loop_lag import measure_lag
from wavserve.system.telemetry import Metrics
from wavserve.system.vital_tasks import VitalTask
from wavserve.wire.parts import check_protobuf

log = logging.getLogger(__name__)


async def serve(settings: Settings, wrap_backend: WrapBackend = identity, metrics: Metrics | None = None) -> None:
    """Runs both edges until SIGINT, SIGTERM or SIGHUP, then drains: it refuses new plans and answers those under way.

    `wrap_backend` and `metrics` as in `assemble`.

    Raises BundleError, SettingsError (a port in use), the error of a warm-up plan that failed, and NotReady when a
    vital part died: then it answers everybody and ends at once.
    """
    configure_logging(settings.log.level, settings.log.format)
    check_protobuf()
    throttle_accept_errors(asyncio.get_running_loop())
    with closing(bind_all(settings)) as listening:
        await _serve_on(listening, settings, wrap_backend, metrics or Metrics())


async def _serve_on(listening: Listening, settings: Settings, wrap_backend: WrapBackend, metrics: Metrics) -> None:
    """Assembles the service and runs it until it ends."""
    ending = Ending()
    opened = open_trail(settings.tracing, settings.log, metrics)
    try:
        service = await ending.unless_ended(assemble(settings, wrap_backend, ending.on_death, metrics))
        if service is not None:
            try:
                trail = replace(opened.trail, on_failed=service.noted.refusals.note)
                await _run(settings, service, listening, ending, trail)
            finally:
                await ending.close(service.close())
                ending.ignore_signals()
    finally:
        await asyncio.to_thread(opened.close)
    ending.check()


async def _run(settings: Settings, service: Service, listening: Listening, ending: Ending, trail: Trail) -> None:
    """Runs both edges of a service until it ends."""
    http, grpc_server = open_edges(settings, service, listening, trail)
    addresses = listening.addresses(settings)
    hand_over(listening.grpc, grpc_server)
    await grpc_server.start()
    allow_restart(listening.http)
    edges = [
        VitalTask(http.serve(sockets=listening.http), "the HTTP server", ending.on_death),
        VitalTask(grpc_server.wait_for_termination(), "the gRPC server", ending.on_death),
    ]
    lag = VitalTask(measure_lag(service.metrics.observe_lag, time.monotonic), "the event loop's clock")
    log.info("http://%s, grpc %s", *addresses)
    policy = service.policy
    try:
        await ending.unless_ended(policy.warm_up())
        if policy.warm:
            gc.collect()
            gc.freeze()  # keeps loaded objects out of later collections, which would block the loop
        if policy.ready:
            untrained = "; its weights are random: never run its actions on a robot" if policy.spec.untrained else ""
            log.info("ready: policy %s%s", policy.spec.name, untrained)
        elif policy.warm and policy.fault is None:  # a fault of plans is in the log already
            log.error("not ready: models are down or serve another policy; see above")
        await ending.wait()
        log.info("stopping: %d plans under way", policy.plans_in_flight)
    finally:
        service.fleet.stop_repairs()
        service.robots.drain()
        await policy.drain(settings.limits.drain_s if ending.died is None else 0.0)
        http.should_exit = True
        await close_all(grpc_server.stop(grace=GRACE_S), *(edge.join() for edge in edges), lag.stop())
