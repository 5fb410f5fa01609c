"""The HTTP edge: plan, reset, policies, health, metrics and the OpenAPI page. Routes only; the frontend does the work.

One uvicorn worker serves it. Every failure is an RFC 9457 problem. `/docs` loads no script from another server, because
robots' networks are closed.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Annotated, Any

from fastapi import FastAPI, Path, Request
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse, Response

from wavserve.core.errors import Cancelled
from wavserve.core.messages import DEADLINE_KEY, ActionChunk, Observation
from wavserve.core.tracing import TRACE_KEY, TraceContext
from wavserve.edge.compat.tables import CompatConfig
from wavserve.edge.frontend import Arrival, Frontend, PolicyProtocol
from wavserve.edge.http import answer_schemas, contract, schemas
from wavserve.edge.http.answers import chunk_json, json_response, policy_json, problem_response
from wavserve.edge.http.authors import AuthorsApi
from wavserve.edge.http.body import invalid_request_from, parse_plan
from wavserve.edge.http.gate import HttpGate
from wavserve.edge.http.headers import request_media_type
from wavserve.edge.http.ui.routes import LivePage
from wavserve.edge.http.while_connected import while_connected
from wavserve.edge.limits import EdgeLimits
from wavserve.edge.report import http_problem, log_refusal, report
from wavserve.edge.trail import Caller, Trail
from wavserve.scheduling.permits import Permit
from wavserve.system.exposition import Exposition, media_type_for
from wavserve.system.telemetry import Metrics

_NO_TELEMETRY = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
"""FastAPI's own, which otherwise reports each request to what happens to be installed."""

SessionId = Annotated[
    str, Path(description="Id of a session, from an answer.", json_schema_extra=contract.SESSION_LENGTH)
]


def create_http_app(
    policy: PolicyProtocol,
    limits: EdgeLimits,
    metrics: Metrics,
    compat: CompatConfig | None = None,
    trail: Trail | None = None,
    page: LivePage | None = None,
) -> FastAPI:
    """The HTTP app over a policy. `compat`: for clients of the authors' server; None: they are refused. `page`: the
    live page; None: there is none."""
    frontend = Frontend(policy, limits, metrics.plans.refused, trail=trail or Trail())
    routes = _Routes(frontend, metrics, AuthorsApi(frontend, compat or CompatConfig(policy.spec.chunk)))
    app = FastAPIOffline(title="wavserve", description="HTTP API of wavserve.", redoc_url=None, telemetry=_NO_TELEMETRY)
    app.router.redirect_slashes = False  # a client loses the body of a POST on the way
    contract.describe(app, policy.spec, limits)
    app.add_middleware(HttpGate, max_body_bytes=limits.max_body_bytes, metrics=metrics)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_invalid_parameter)
    plan_extra = {"requestBody": contract.plan_body(policy.spec), "parameters": [contract.DEADLINE_HEADER]}
    app.post("/v1/plan", responses=_answer(answer_schemas.ChunkAnswer), openapi_extra=plan_extra)(routes.plan)
    app.post("/v1/sessions/{session_id}/reset", responses=_answer(answer_schemas.ResetAnswer))(routes.reset)
    app.delete("/v1/sessions/{session_id}", responses=_answer(answer_schemas.ResetAnswer))(routes.end)
    # not in the document: its contract is the authors', in docs/migrating.md
    app.post("/predict", include_in_schema=False)(routes.predict)
    app.post("/reset", include_in_schema=False)(routes.reset_authors)
    app.get("/v1/policies", responses=_answer(answer_schemas.PoliciesAnswer))(routes.policies)
    app.get("/healthz", responses=_answer(answer_schemas.HealthAnswer))(routes.healthz)
    app.get("/readyz", responses=_answer(answer_schemas.HealthAnswer))(routes.readyz)
    app.get("/metrics", responses={200: {"content": {"text/plain": {}}}})(routes.metrics)
    if page is not None:
        page.add_to(app)
    return app


class _Routes:
    """One method for each route."""

    def __init__(self, frontend: Frontend, metrics: Metrics, authors: AuthorsApi) -> None:
        self._frontend = frontend
        self._exposition = Exposition(metrics)
        self._authors = authors

    async def plan(self, request: Request) -> Response:
        """Plans one chunk of actions from one observation.

        The body is JSON with base64 images, or multipart. A multipart body has a part `request`, which is the same JSON
        without the images' bytes, and one binary part for each camera. That part has the camera's name and the type
        image/jpeg, image/png or application/octet-stream.
        """
        with self._admit(request) as arrival:
            read = partial(parse_plan, request_media_type(request.headers))
            body = await self._frontend.receive(_body(request, arrival.permit), arrival)
            chunk = await while_connected(request.receive, self._plan(read, body, arrival))
        return json_response(chunk_json(chunk))

    def _admit(self, request: Request) -> AbstractContextManager[Arrival]:
        headers = request.headers
        stated, deadlines_ms = int(headers.get("content-length", 0)), headers.getlist(DEADLINE_KEY)
        caller = Caller(sender_of(request), "http", parent=TraceContext.parse(headers.getlist(TRACE_KEY)))
        return self._frontend.admit(deadlines_ms, request.state.received_ns, caller, stated)

    async def _plan(self, read: Callable[[bytes], Observation], body: bytes, arrival: Arrival) -> ActionChunk:
        return await self._frontend.plan(await self._frontend.parse(read, body, arrival), arrival)

    async def reset(self, session_id: SessionId) -> Response:
        """Forgets the frame memory of a session. The session's next observation starts a new memory."""
        await self._frontend.reset(session_id)
        return json_response({"session_id": session_id})

    async def end(self, session_id: SessionId) -> Response:
        """Ends a session: its place is free for another one. A session that is unknown has ended."""
        await self._frontend.end_session(session_id)
        return json_response({"session_id": session_id})

    async def predict(self, request: Request) -> Response:
        """Plans one chunk for a client of the authors' server. Answers float32, row by row."""
        with self._admit(request) as arrival:
            media = request_media_type(request.headers)
            body = await self._frontend.receive(_body(request, arrival.permit), arrival)
            work = self._authors.predict(request.headers, media, body, arrival)
            actions = await while_connected(request.receive, work)
        return Response(actions, media_type="application/octet-stream")

    async def reset_authors(self, request: Request) -> Response:
        """Forgets a session that the authors' client named."""
        await self._authors.reset(request.headers)
        return PlainTextResponse("Reset OK\n")

    async def policies(self) -> Response:
        """The policy that this server serves: cameras, dimensions, units, planner defaults and bounds."""
        return json_response({"policies": [policy_json(self._frontend.info())]})

    async def healthz(self) -> Response:
        """Answers 200 while the process runs."""
        return json_response({"status": "alive"})

    async def readyz(self) -> Response:
        """Answers 200 while the policy accepts requests, else 503. At the start it makes one real plan first."""
        self._frontend.check_ready()
        return json_response({"status": "ready"})

    async def metrics(self, request: Request) -> Response:
        """Metrics in the Prometheus text format, or in OpenMetrics, with exemplars, for a client that accepts it."""
        media_type = media_type_for(request.headers.get("accept", ""))
        return Response(await self._exposition.text(media_type), headers={"content-type": media_type})


def _answer(model: type[schemas.Body]) -> dict[int | str, dict[str, Any]]:
    return {200: {"model": model}, **contract.PROBLEM}


def sender_of(request: Request) -> str:
    """The client's address. A connection without one, such as of a Unix socket, is a sender of its own."""
    client = request.client
    return client.host if client is not None and client.host else f"connection {id(request.receive):x}"


async def _body(request: Request, permit: Permit) -> bytes:
    """The whole body. Raises Overloaded when the requests under way hold too many bytes."""
    pieces = []
    try:
        async for piece in request.stream():
            permit.take_bytes(len(piece))
            pieces.append(piece)
        return b"".join(pieces)
    except ClientDisconnect:
        raise Cancelled("the client disconnected before it had sent its request") from None


async def _on_http_exception(request: Request, error: Exception) -> Response:
    """An error that the framework raises itself, for an unknown path or method."""
    assert isinstance(error, HTTPException)
    problem = http_problem(error.status_code, f"{request.method} {request.url.path}: {error.detail}")
    request.state.outcome = problem.name
    log_refusal(problem, "http")
    return problem_response(problem, error.headers)


async def _on_invalid_parameter(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problem = report(invalid_request_from(error.errors()[0], "request"), "http")
    request.state.outcome = problem.name
    return problem_response(problem)
