"""A simulated robot's transports: JSON or multipart over HTTP, or gRPC. Each sends an observation and returns a reply.

Failures have the same types on every transport: the errors of `wavserve.core.errors`, and `RequestLost` without an
answer.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from typing import Any, Protocol

import httpx
import orjson

from loadtest.robots.replies import Reply, from_chunk, from_json
from loadtest.robots.scenario import Edge
from wavserve.clients.async_client import AsyncPlanClient
from wavserve.core.errors import DeadlineExceeded, MissedDeadline, NotReady, Overloaded, UnknownSession, WavserveError
from wavserve.core.messages import DEADLINE_KEY, EncodedImage, Observation, json_integer

ANSWER_TIMEOUT_S = 120.0
"""A request that has no answer after this time counts as lost."""

_PROBLEM = "urn:wavserve:problem:"


class RequestLost(Exception):
    """No answer arrived: the connection broke, or ANSWER_TIMEOUT_S passed."""


class Transport(Protocol):
    """One robot's connection to the service."""

    async def plan(self, observation: Observation) -> Reply:
        """One plan. Raises the WavserveError that the service reports, or RequestLost."""
        ...

    async def close(self) -> None: ...


class HttpTransport:
    """HTTP. Robots may share the client: it opens a connection for each request in flight."""

    def __init__(self, client: httpx.AsyncClient, multipart: bool) -> None:
        self._client = client
        self._multipart = multipart

    async def plan(self, observation: Observation) -> Reply:
        deadline = observation.deadline_ms
        deadline_header = {} if deadline is None else {DEADLINE_KEY: str(deadline)}
        content, headers = self._body(observation)
        try:
            response = await self._client.post("/v1/plan", headers=headers | deadline_header, **content)
        except httpx.HTTPError as error:
            raise RequestLost(f"{type(error).__name__}: {error}") from error
        if response.is_error:
            raise problem_error(response)
        return from_json(orjson.loads(response.content))

    async def close(self) -> None:
        """Does nothing: the transport does not own the client."""

    def _body(self, observation: Observation) -> tuple[dict[str, Any], dict[str, str]]:
        """The content arguments of an httpx request, and the matching headers."""
        fields = _fields(observation)
        if not self._multipart:
            body = orjson.dumps(fields | {"images": [_image(image) for image in observation.images]})
            return {"content": body}, {"content-type": "application/json"}
        parts = {"request": (None, orjson.dumps(fields), "application/json")}
        images = {i.camera: (i.camera, i.data, f"image/{i.encoding}") for i in observation.images}
        return {"files": parts | images}, {}


class GrpcTransport:
    """gRPC, on its own connection."""

    def __init__(self, target: str) -> None:
        self._client = AsyncPlanClient(target)

    async def plan(self, observation: Observation) -> Reply:
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                return from_chunk(await self._client.plan(observation, self._timeout_s(observation)))
        except TimeoutError as error:
            raise RequestLost(f"no answer within {ANSWER_TIMEOUT_S:.0f} s") from error
        except NotReady as error:
            if error.error_id is None:  # gRPC's own error: the request did not reach the service
                raise RequestLost(error.message) from error
            raise

    def _timeout_s(self, observation: Observation) -> float | None:
        """Long enough that late answers are seen. The service would take it for the deadline of a request without."""
        return None if observation.deadline_ms is None else ANSWER_TIMEOUT_S

    async def close(self) -> None:
        await self._client.close()


def transport_for(edge: Edge, client: httpx.AsyncClient, grpc: str | None) -> Transport:
    """A robot's transport. Raises ValueError for a gRPC robot when the service's gRPC address is not known."""
    if edge != "grpc":
        return HttpTransport(client, multipart=edge == "http-multipart")
    if grpc is None:
        raise ValueError("robots of this scenario use gRPC: expected the service's gRPC HOST:PORT, got nothing")
    return GrpcTransport(grpc)


def problem_error(response: httpx.Response) -> WavserveError:
    """The error that an HTTP problem document describes."""
    try:
        problem = orjson.loads(response.content)
        name, detail = str(problem["type"]).removeprefix(_PROBLEM), str(problem["detail"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return WavserveError(f"HTTP {response.status_code} without a problem document")
    match name:
        case "overloaded":
            return Overloaded(detail, float(problem.get("retry_after_s", 1.0)))
        case "deadline-exceeded":
            return DeadlineExceeded(detail, _missed(problem))
        case "unknown-session":
            return UnknownSession("session_id", problem.get("expected"), problem.get("actual"))
        case "not-ready":
            return NotReady(detail)
        case _:
            return WavserveError(f"{name}: {detail}")


def _missed(problem: Mapping[str, Any]) -> MissedDeadline | None:
    names = ("slack_ms", "iterations_done", "num_video_samples", "num_value_samples")
    return MissedDeadline(*(problem[name] for name in names)) if problem.get("deadline") == "missed" else None


def _fields(observation: Observation) -> dict[str, Any]:
    return {
        "instruction": observation.instruction,
        "state": observation.state,
        "session_id": observation.session_id,
        "sequence": json_integer(observation.sequence),
        "control_step": json_integer(observation.control_step),
        "executed_steps": observation.executed_steps,
        "planner": dict(observation.options),
        "seed": None if observation.seed is None else json_integer(observation.seed),
        "deadline_ms": observation.deadline_ms,
    }


def _image(image: EncodedImage) -> dict[str, str]:
    return {"camera": image.camera, "encoding": image.encoding, "data": base64.b64encode(image.data).decode()}
