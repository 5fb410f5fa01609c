"""Opens the live page of the gateway, and says where there is none. Part of the composition root."""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING

from wavserve.app.settings import Settings
from wavserve.core.address import Address
from wavserve.edge.http.ui.routes import LivePage, PageConfig
from wavserve.edge.http.ui.snapshot import Gateway, Readiness
from wavserve.edge.http.ui.sources import Sources, StoreHealth
from wavserve.edge.recent_plans import RecentPlans
from wavserve.edge.refusals import Refusals

if TYPE_CHECKING:
    from wavserve.app.service import Service

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Noted:
    """What the service notes for onlookers. It is bounded, and noted whether anybody looks or not."""

    plans: RecentPlans = field(default_factory=RecentPlans)
    refusals: Refusals = field(default_factory=Refusals)
    store: StoreHealth = field(default_factory=StoreHealth)


def open_page(
    settings: Settings, service: Service, listening: Sequence[socket.socket], addresses: tuple[Address, Address]
) -> LivePage:
    """The page over an assembled service. `listening`: the bound sockets of HTTP; `addresses`: of HTTP and gRPC."""
    config = page_config(settings, [sock.getsockname()[0] for sock in listening])
    log.info("live page: %s", config.off or f"http://{addresses[0]}/ui")
    policy, fleet = service.policy, service.fleet

    def readiness() -> Readiness:
        return Readiness(policy.ready, policy.fault, fleet.placement.draining, policy.plans_in_flight)

    sources = Sources(
        gateway=_gateway(service, addresses),
        spec=policy.spec,
        readiness=readiness,
        devices=lambda: fleet.placement.devices,
        num_sessions=lambda: len(service.sessions.local),
        robots=service.robots,
        plans=service.noted.plans,
        refusals=service.noted.refusals,
        store=service.noted.store,
    )
    return LivePage(config, sources, policy.imagine)


def page_config(settings: Settings, addresses: Sequence[str]) -> PageConfig:
    """Whether there is a page on these addresses of HTTP, and the names under which browsers may open it."""
    names = frozenset({socket.gethostname().lower(), settings.http.host.lower(), *settings.ui.hosts})
    is_local = all(_is_loopback(address) for address in addresses)
    match settings.ui.enabled:
        case "off":
            return PageConfig("off, because ui.enabled is off; `ui.enabled = on` turns it on")
        case "auto" if not is_local:
            where = ", ".join(addresses)
            return PageConfig(
                f"off, because HTTP listens on {where}, which is more than loopback; `ui.enabled = on` shows robots, "
                "tasks and plans to everybody who reaches HTTP"
            )
    return PageConfig(None, names)


def _is_loopback(address: str) -> bool:
    parsed = ipaddress.ip_address(address.partition("%")[0])
    return (getattr(parsed, "ipv4_mapped", None) or parsed).is_loopback


def _gateway(service: Service, addresses: tuple[Address, Address]) -> Gateway:
    http, grpc = addresses
    return Gateway(
        host=socket.gethostname(),
        pid=os.getpid(),
        version=version("wavserve"),
        http=str(http),
        grpc=str(grpc),
        policy=service.fleet.spec.name,
        digest=service.fleet.digest,
        untrained=service.fleet.spec.untrained,
        backend=service.fleet.kind,
        dtype=service.fleet.dtype,
    )
