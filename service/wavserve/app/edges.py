"""Builds both edges over an assembled service: HTTP with its websockets and live page, and gRPC.

Part of the composition root. Knows neither when the edges start nor when they end.
"""

from __future__ import annotations

import logging
import socket
from contextlib import ExitStack
from dataclasses import dataclass

import grpc.aio

from wavserve.app.listeners import bind, max_connections, max_open_files
from wavserve.app.live_page import open_page
from wavserve.app.service import Service
from wavserve.app.settings import CompatSettings, LimitSettings, Settings
from wavserve.core.address import Address
from wavserve.core.spec import PolicySpec
from wavserve.edge.compat.tables import DIALECTS, CompatConfig, tables_for
from wavserve.edge.frontend import Frontend
from wavserve.edge.grpc.plan import create_grpc_server
from wavserve.edge.http.api import create_http_app
from wavserve.edge.http.open_connections import ConnectionLimits
from wavserve.edge.http.server import HttpServer, create_http_server
from wavserve.edge.limits import EdgeLimits
from wavserve.edge.trail import Trail
from wavserve.edge.websocket.openpi import OpenpiEndpoint

log = logging.getLogger(__name__)

GRACE_S = 5
"""Seconds in which the last answers may be sent after the plans have ended."""


@dataclass(frozen=True, slots=True)
class Listening:
    """The bound sockets of both edges, and the connections that each may have."""

    http: list[socket.socket]
    grpc: list[socket.socket]
    max_connections: int

    def close(self) -> None:
        """Harmless for sockets that a server has closed."""
        for each in (*self.http, *self.grpc):
            each.close()

    def addresses(self, settings: Settings) -> tuple[Address, Address]:
        """Of HTTP and gRPC, for the log."""
        http, grpc_ = (sockets[0].getsockname()[1] for sockets in (self.http, self.grpc))
        return Address(settings.http.host, http), Address(settings.grpc.host, grpc_)


def bind_all(settings: Settings) -> Listening:
    """Binds the addresses of both edges. Raises SettingsError for one that cannot be used."""
    most = max_connections(settings.limits.max_connections, max_open_files())
    with ExitStack() as bound:
        http = bind("http", settings.http.host, settings.http.port)
        for each in http:
            bound.enter_context(each)
        rpc = bind("grpc", settings.grpc.host, settings.grpc.port)
        bound.pop_all()
        return Listening(http, rpc, most)


def open_edges(
    settings: Settings, service: Service, listening: Listening, trail: Trail
) -> tuple[HttpServer, grpc.aio.Server]:
    """The servers of both edges, not started. Raises SettingsError for settings that do not fit the policy."""
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
