"""Builds the service from the settings and runs it.

The centre of the composition root; `fleet` opens the devices, and `triton_entry` builds a model's own process. Every
part gets only its own slice of the settings. Nothing is global.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import platform
import socket
import time
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version

import grpc.aio

from wavserve.app.ending import Ending
from wavserve.app.fleet import Fleet, WrapBackend, identity, open_fleet
from wavserve.app.listeners import allow_restart, bind, hand_over, max_connections, max_open_files
from wavserve.app.live_page import Noted, open_page
from wavserve.app.session_store import OpenedStore, open_store, open_texts
from wavserve.app.settings import CompatSettings, LimitSettings, Settings
from wavserve.app.tracing import open_trail
from wavserve.core.address import Address
from wavserve.core.errors import SettingsError
from wavserve.core.messages import ActionChunk
from wavserve.core.spec import PolicySpec
from wavserve.core.tracing import current
from wavserve.core.types import PlanRequest
from wavserve.edge.compat.tables import DIALECTS, CompatConfig, tables_for
from wavserve.edge.frontend import Frontend
from wavserve.edge.grpc.control.robots import Robots
from wavserve.edge.grpc.plan import create_grpc_server
from wavserve.edge.http.api import create_http_app
from wavserve.edge.http.open_connections import ConnectionLimits
from wavserve.edge.http.server import HttpServer, create_http_server, throttle_accept_errors
from wavserve.edge.http.ui.sources import StoreHealth
from wavserve.edge.limits import EdgeLimits
from wavserve.edge.recent_plans import RecentPlans
from wavserve.edge.trail import Trail
from wavserve.edge.websocket.openpi import OpenpiEndpoint
from wavserve.planning.device import Device
from wavserve.policy.golden import TOLERANCES, GoldenCheck
from wavserve.policy.parts import PolicyParts
from wavserve.policy.policy import Policy
from wavserve.policy.records import Recorder
from wavserve.policy.redis_texts import RedisTexts, TextEncoder
from wavserve.policy.sessions import SessionStore
from wavserve.system.log_lines import configure_logging
from wavserve.system.loop_lag import measure_lag
from wavserve.system.plan_metrics import PlanMetrics
from wavserve.system.telemetry import Metrics
from wavserve.system.vital_tasks import OnDeath, VitalTask, ignore_death
from wavserve.wire.parts import check_protobuf

log = logging.getLogger(__name__)

GRACE_S = 5
"""Seconds in which the last answers may be sent after the plans have ended."""


@dataclass(frozen=True, slots=True)
class Service:
    """Everything between the edges and the models, assembled."""

    policy: Policy
    sessions: OpenedStore
    texts: RedisTexts | None
    """embeddings that gateways share"""
    metrics: Metrics
    fleet: Fleet
    robots: Robots
    noted: Noted

    async def close(self) -> None:
        if self.texts is not None:
            await self.texts.close()
        await self.sessions.close()
        await self.fleet.close()


@dataclass(frozen=True, slots=True)
class _Listening:
    """The bound sockets of both edges, and the connections that each may have."""

    http: list[socket.socket]
    grpc: list[socket.socket]
    max_connections: int

    def addresses(self, settings: Settings) -> tuple[Address, Address]:
        """Of HTTP and gRPC, for the log."""
        http, grpc_ = (sockets[0].getsockname()[1] for sockets in (self.http, self.grpc))
        return Address(settings.http.host, http), Address(settings.grpc.host, grpc_)


def _bind(settings: Settings) -> _Listening:
    most = max_connections(settings.limits.max_connections, max_open_files())
    http = bind("http", settings.http.host, settings.http.port)
    return _Listening(http, bind("grpc", settings.grpc.host, settings.grpc.port), most)


async def assemble(
    settings: Settings,
    wrap_backend: WrapBackend = identity,
    on_death: OnDeath = ignore_death,
    metrics: Metrics | None = None,
) -> Service:
    """Opens the models and connects the parts. The caller then calls `policy.warm_up`.

    `wrap_backend` and `on_death` as in `open_fleet`, which tells what is raised. `metrics` None: of its own.
    """
    metrics = metrics or Metrics()
    recorder = None if settings.record.folder is None else Recorder(settings.record.folder)
    noted = Noted()
    fleet = await open_fleet(settings, metrics, wrap_backend, on_death)
    log.info("the models compute in %s", fleet.dtype)
    try:
        sessions = await open_store(settings, fleet.digest, partial(_stored, metrics, noted.store))
    except SettingsError:
        await fleet.close()
        raise
    texts = open_texts(sessions, settings, _text_encoder(fleet), metrics.calls.stored)

    def share_texts(device: Device) -> None:
        device.perception.shared = texts

    fleet.placement.with_each(share_texts)  # also with Tritons that join later
    noted.store.follow(sessions.where, sessions.store.ensure_room)
    policy = Policy(_parts(settings, fleet, sessions.store, metrics, recorder, noted.plans))
    metrics.describe_build(_build(fleet))
    metrics.watch_memory(fleet.memory)
    metrics.watch_lookups(fleet.lookups)
    metrics.watch_queue(lambda: fleet.queue_depth, lambda: fleet.queue_age_s)
    metrics.watch_remaining(lambda: fleet.remaining_s)
    metrics.watch_arena(lambda: fleet.slots()[0], lambda: fleet.slots()[1])
    metrics.watch_sessions(lambda: len(sessions.local))
    metrics.watch_plans(lambda: policy.plans_in_flight)
    robots = Robots()
    metrics.watch_robots(lambda: len(robots))
    return Service(policy, sessions, texts, metrics, fleet, robots, noted)


async def serve(settings: Settings, wrap_backend: WrapBackend = identity, metrics: Metrics | None = None) -> None:
    """Runs both edges until SIGINT, SIGTERM or SIGHUP, then drains: it refuses new plans and answers those under way.

    `wrap_backend` and `metrics` as in `assemble`.

    Raises BundleError, SettingsError (a port in use), the error of a warm-up plan that failed, and NotReady when a
    vital part died: then it answers everybody and ends at once.
    """
    configure_logging(settings.log.level, settings.log.format)
    check_protobuf()
    throttle_accept_errors(asyncio.get_running_loop())
    listening = _bind(settings)
    ending, metrics = Ending(), metrics or Metrics()
    opened = open_trail(settings.tracing, settings.log, metrics)
    try:
        service = await ending.unless_ended(assemble(settings, wrap_backend, ending.on_death, metrics))
        if service is not None:
            try:
                trail = replace(opened.trail, on_failed=service.noted.refusals.note)
                await _serve(settings, service, listening, ending, trail)
            finally:
                await ending.close(service.close())
                ending.ignore_signals()
    finally:
        await asyncio.to_thread(opened.close)
    ending.check()


async def _serve(settings: Settings, service: Service, listening: _Listening, ending: Ending, trail: Trail) -> None:
    """Runs both edges of a service until it ends."""
    http, grpc_server = _edges(settings, service, listening, trail)
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
        await asyncio.gather(grpc_server.stop(grace=GRACE_S), *(edge.join() for edge in edges))
        await lag.stop()


def _edges(
    settings: Settings, service: Service, listening: _Listening, trail: Trail
) -> tuple[HttpServer, grpc.aio.Server]:
    limits = edge_limits(settings.limits)
    most = listening.max_connections
    connections = ConnectionLimits(most, settings.limits.max_connections_per_address)
    compat = _compat(settings.compat, service.policy.spec)
    page = open_page(settings, service, listening.http, listening.addresses(settings))
    app = create_http_app(service.policy, limits, service.metrics, compat, trail, page)
    frontend = Frontend(service.policy, limits, service.metrics.plans.refused, trail=trail)
    openpi = OpenpiEndpoint(frontend, compat, service.metrics)
    most_on_each = max(1, most // len(listening.grpc))  # gRPC counts those of each socket
    rpc = create_grpc_server(service.policy, limits, service.metrics, most_on_each, service.robots, trail)
    return create_http_server(app, connections, GRACE_S, openpi), rpc


def edge_limits(settings: LimitSettings) -> EdgeLimits:
    """The edge's slice of the limits."""
    return EdgeLimits(
        max_body_bytes=settings.max_body_bytes,
        max_image_bytes=settings.max_image_bytes,
        max_image_pixels=settings.max_image_pixels,
    )


def _compat(settings: CompatSettings, spec: PolicySpec) -> CompatConfig:
    """What clients of other servers get. Raises SettingsError for settings that do not fit the policy."""
    tables = tables_for({name: getattr(settings, name) for name in DIALECTS}, settings.model_fields_set, spec)
    served = ", ".join(tables) or "none, no compat table fits the policy's cameras"
    if spec.untrained and not settings.allow_untrained:
        served = "none, the policy is untrained (compat.allow_untrained)"
    log.info("clients of other servers: %s", served)
    config = CompatConfig(
        executed_steps=settings.executed_steps or spec.chunk,
        tables=tables,
        instruction=settings.instruction,
        allow_untrained=settings.allow_untrained,
    )
    config.check(spec)
    return config


def _parts(
    settings: Settings,
    fleet: Fleet,
    sessions: SessionStore,
    metrics: Metrics,
    recorder: Recorder | None,
    recent: RecentPlans,
) -> PolicyParts:
    return PolicyParts(
        spec=fleet.spec,
        digest=fleet.digest,
        placement=fleet.placement,
        sessions=sessions,
        max_plans=settings.limits.max_concurrent_plans,
        max_bytes=settings.limits.max_inflight_bytes,
        golden=_golden_check(fleet),
        version=version("wavserve"),
        keep=None if recorder is None else partial(recorder.keep, dtype=fleet.dtype),
        on_plan=partial(_observe, metrics.plans, recent),
        on_missed=lambda stage_s: metrics.plans.missed(stage_s, _trace_id()),
        on_refused=metrics.plans.refused,
        on_broken=lambda outcome, broken: metrics.plans.gated(outcome, broken.limit, broken.name),
        on_unusual=metrics.plans.unusual,
    )


def _stored(metrics: Metrics, health: StoreHealth, operation: str, outcome: str, seconds: float) -> None:
    metrics.calls.stored(operation, outcome, seconds)
    health.note(operation, outcome, seconds)


def _observe(metrics: PlanMetrics, recent: RecentPlans, chunk: ActionChunk, request: PlanRequest) -> None:
    recent.note(chunk, request)
    receipt = chunk.receipt
    metrics.answered(receipt.iterations_done, receipt.deadline.value, receipt.stage_s, _trace_id())
    if receipt.seam_jump is not None:
        metrics.seam("off" if receipt.rtc is None else receipt.rtc.mode, receipt.seam_jump)
    if receipt.iterations_done > 1 and (gain := receipt.gain) is not None:
        metrics.planned(gain, receipt.iterations[-1].video_std)


def _text_encoder(fleet: Fleet) -> TextEncoder:
    spec = fleet.spec
    return TextEncoder(fleet.digest, fleet.dtype, spec.model.video.caption_channels, spec.max_prompt_tokens)


def _trace_id() -> str:
    """Of the request that is being answered, where it is traced."""
    span = current()
    return span.context.trace_id if span.recorded and span.context is not None else ""


def _build(fleet: Fleet) -> dict[str, str]:
    return {
        "version": version("wavserve"),
        "python": platform.python_version(),
        "policy": fleet.spec.name,
        "policy_digest": fleet.digest,
        "dtype": fleet.dtype,
    }


def _golden_check(fleet: Fleet) -> GoldenCheck | None:
    if fleet.golden is None:
        log.warning("the bundle has no golden plan, so the models' plans are not checked: see wavserve bundle golden")
        return None
    return GoldenCheck(fleet.spec, fleet.golden, TOLERANCES[fleet.dtype])
