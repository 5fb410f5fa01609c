"""A gateway with a live page in a test: both edges on real sockets, over a policy with a fake backend."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.edge.grpc.control.links import ANSWER_S, LIMITS, Link, Server, serving_rig
from tests.edge.robots import MANY_CONNECTIONS
from tests.planning.rig import Rig, RigOptions
from wavserve.core.messages import ActionChunk
from wavserve.edge.http.api import create_http_app
from wavserve.edge.http.server import create_http_server
from wavserve.edge.http.ui.routes import LivePage, PageConfig
from wavserve.edge.http.ui.snapshot import Gateway, Readiness
from wavserve.edge.http.ui.sources import Sources, StoreHealth
from wavserve.edge.recent_plans import RecentPlans
from wavserve.edge.refusals import Refusals
from wavserve.edge.trail import Trail

GATEWAY = Gateway("gw-<1>", 4711, "0.0.1", "127.0.0.1:1", "127.0.0.1:2", "tiny", "d" * 64, True, "local", "float32")


@dataclass
class PageServed:
    """What a test has of it. `client` sends what a browser on this machine sends."""

    server: Server
    rig: Rig
    page: LivePage
    client: httpx.AsyncClient
    plans: RecentPlans
    refusals: Refusals
    store: StoreHealth
    looks: list[float] = field(default_factory=list)
    """when each snapshot was read"""

    async def plan(self, link: Link, sequence: int = 0, **changes: Any) -> ActionChunk:
        await link.send(link.observation(sequence, **changes))
        return await link.receive(ActionChunk)

    async def imagine(self, key: str, **headers: str) -> httpx.Response:
        return await self.client.post(f"/ui/imagine/{key}", headers={"origin": str(self.client.base_url), **headers})

    async def key_of(self, name: str) -> str:
        """The key of a robot's card."""
        return next(key for key, shown in (await self.page.live.now()).cards if shown == name)


@asynccontextmanager
async def page_served(config: PageConfig | None = None, options: RigOptions | None = None) -> AsyncIterator[PageServed]:
    plans, refusals, store = RecentPlans(), Refusals(), StoreHealth()
    trail = Trail(on_failed=refusals.note)
    chosen = options or RigOptions(on_plan=plans.note)
    async with serving_rig(chosen, trail) as (server, rig):
        policy, looks = rig.policy, list[float]()
        sources = Sources(
            gateway=GATEWAY,
            spec=rig.spec,
            readiness=lambda: Readiness(policy.ready, policy.fault, server.robots.draining.is_set(), 0),
            devices=lambda: [rig.device],
            num_sessions=lambda: len(rig.sessions),
            robots=server.robots,
            plans=plans,
            refusals=refusals,
            store=store,
            clock=lambda: looks.append(loop.time()) or loop.time(),  # type: ignore[func-returns-value]
        )
        loop = asyncio.get_running_loop()
        page = LivePage(config or PageConfig(), sources, policy.imagine)
        app = create_http_app(policy, LIMITS, server.metrics, trail=trail, page=page)
        listener = socket.create_server(("127.0.0.1", 0))
        http = create_http_server(app, MANY_CONNECTIONS, 5)
        serving = asyncio.create_task(http.serve(sockets=[listener]))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with httpx.AsyncClient(base_url=url, timeout=ANSWER_S) as client:
            yield PageServed(server, rig, page, client, plans, refusals, store, looks)
        http.should_exit = True
        await serving


class Watching:
    """A viewer of the events."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.aiter_lines()

    async def event(self) -> tuple[str, dict[str, Any]]:
        """The next event's name and data. Raises StopAsyncIteration at the end."""
        name = ""
        async with asyncio.timeout(ANSWER_S):
            while True:
                line = await anext(self._lines)
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    return name, json.loads(line.removeprefix("data: "))

    async def until(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first look that fulfils the condition."""
        async with asyncio.timeout(ANSWER_S):
            while True:
                name, look = await self.event()
                assert name == "look", name
                if condition(look):
                    return look


@asynccontextmanager
async def watching(served: PageServed) -> AsyncIterator[Watching]:
    async with served.client.stream("GET", "/ui/events") as response:
        assert response.status_code == 200, await response.aread()
        yield Watching(response)
