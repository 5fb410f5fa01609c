"""The routes of the live page: the page, its events, its style and script, and frames imagined on demand.

No route plans, and none of them answers under a name or to a page of strangers. Knows no markup.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from wavserve.core.errors import Cancelled, TooLarge, WavserveError
from wavserve.core.messages import EncodedImage
from wavserve.edge.http.ui.access import foreign_host, foreign_origin
from wavserve.edge.http.ui.live import HELLO, Live, Look, Queue
from wavserve.edge.http.ui.page import Page
from wavserve.edge.http.ui.sources import Sources
from wavserve.edge.http.while_connected import while_connected
from wavserve.edge.report import report

_STATIC = Path(__file__).parent / "static"
_MEDIA = {"ui.css": "text/css", "ui.js": "text/javascript"}
_EVENTS = "text/event-stream"
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",  # with none a browser sends a form without its origin
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}

Imagine = Callable[[str, str], Awaitable[Mapping[str, tuple[EncodedImage, ...]]]]
"""Imagines frames of a session's last plan: session, instruction -> camera -> frames."""


@dataclass(frozen=True, slots=True)
class PageConfig:
    """Whether there is a page, and under which names. `off`: why there is none, and how to get it; None: there is."""

    off: str | None = None
    hosts: frozenset[str] = frozenset()
    """names of the gateway, in lower case, beside its addresses"""


class LivePage:
    """The live page of one gateway."""

    def __init__(self, config: PageConfig, sources: Sources, imagine: Imagine) -> None:
        self._config = config
        self._sources = sources
        self._imagine = imagine
        self._page = Page(sources.spec)
        self.live = Live(self._look, sources.robots.draining)
        self._static = {name: (_STATIC / name).read_bytes() for name in _MEDIA}

    def add_to(self, app: FastAPI) -> None:
        """Adds the routes. They are not in the API's document."""
        app.get("/ui", include_in_schema=False)(self.page)
        app.get("/ui/events", include_in_schema=False)(self.events)
        app.get("/ui/{name}", include_in_schema=False)(self.static)
        app.post("/ui/imagine/{key}", include_in_schema=False)(self.imagine)

    async def page(self, request: Request) -> Response:
        """The page as it is now. It needs no script."""
        self._check(request)
        look = await self.live.now()
        return _html(await asyncio.to_thread(self._page.document, look))

    async def events(self, request: Request) -> Response:
        """Server-sent events: what changes, once a second."""
        self._check(request)
        if request.state.is_head:  # its answer has no body, and would never end
            return Response(headers=HEADERS, media_type=_EVENTS)
        return EventStream(self.live)

    async def static(self, request: Request, name: str) -> Response:
        self._check(request)
        if name not in self._static:
            raise HTTPException(404)
        return Response(self._static[name], headers=HEADERS, media_type=_MEDIA[name])

    async def imagine(self, request: Request, key: str) -> Response:
        """What the last plan of a robot expects to see, as a part of the page; as a page of its own for a form."""
        self._check(request)
        if (foreign := foreign_origin(request.headers)) is not None:
            raise HTTPException(403, foreign)
        part, status = await while_connected(request.receive, self._frames(key))
        from_script = request.headers.get("accept", "").startswith("text/x-part")
        return _html(part if from_script else self._page.alone(part), status)

    async def _frames(self, key: str) -> tuple[str, int]:
        """Markup and status: frames, or why there are none."""
        name, plan = self._sources.plan_of(key)
        if plan is None:
            return self._page.refusal(name, "there is no plan of it any more"), 404
        try:
            frames = await self._imagine(plan.session_id, plan.instruction)
        except WavserveError as error:
            problem = report(error, "http")
            return self._page.refusal(name, problem.detail), problem.status.http
        return await asyncio.to_thread(self._page.frames, name, frames), 200

    async def _look(self) -> Look:
        """Reads on the event loop, so that the facts belong together; makes markup beside it."""
        self._sources.store.refresh()
        return await asyncio.to_thread(self._page.look, self._sources.read())

    def _check(self, request: Request) -> None:
        """Raises HTTPException where the page is off, and under a name that is not the gateway's."""
        refusal = self._config.off or foreign_host(request.headers, self._config.hosts)
        if refusal is not None:
            raise HTTPException(403, refusal)


class EventStream(Response):
    """Sends a viewer's events until the viewer leaves, is dropped, or the service stops."""

    def __init__(self, live: Live) -> None:
        super().__init__(headers={**HEADERS, "x-accel-buffering": "no"}, media_type=_EVENTS)
        del self.headers["content-length"]
        self._live = live

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._live.watching() as queue, contextlib.suppress(Cancelled, TooLarge):  # of a body that nobody wants
            await while_connected(receive, self._send_all(queue, send))

    async def _send_all(self, queue: Queue, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        event: bytes | None = HELLO
        while event is not None:
            await send({"type": "http.response.body", "body": event, "more_body": True})
            event = await queue.get()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _html(markup: str, status: int = 200) -> Response:
    return Response(markup, status, HEADERS, media_type="text/html")
