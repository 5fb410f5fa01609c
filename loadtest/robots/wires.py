"""How a simulated robot reaches the service: JSON or multipart over HTTP, or gRPC. One ask in, one reply out.

Failures are typed alike, whichever edge they came by: those of `wavserve.core.errors`, and `Lost` for a request that
nobody answered.
"""

from __future__ import annotations

import asyncio
import base64
from typing import Any, Protocol

import httpx
import orjson

from loadtest.robots.answers import Reply, from_chunk, from_json
from loadtest.robots.scenario import Edge
from wavserve.clients.async_client import AsyncPlanClient
from wavserve.core.errors import DeadlineExceeded, NotReady, Overloaded, UnknownSession, WavserveError
from wavserve.core.messages import DEADLINE_KEY, EncodedImage, Observation

PATIENCE_S = 120.0
"""After so long without an answer a request counts as lost."""

_PROBLEM = "urn:wavserve:problem:"


class Lost(Exception):
    """No answer came: the connection broke, or PATIENCE_S passed."""


class Wire(Protocol):
    """One robot's way to the service."""

    async def ask(self, observation: Observation) -> Reply:
        """One plan. Raises WavserveError as the service refused it, or Lost."""
        ...

    async def close(self) -> None: ...


class HttpWire:
    """Over HTTP. The client may be shared: each request under way has a connection of its own in it."""

    def __init__(self, client: httpx.AsyncClient, multipart: bool) -> None:
        self._client = client
        self._multipart = multipart

    async def ask(self, observation: Observation) -> Reply:
        deadline = observation.deadline_ms
        told = {} if deadline is None else {DEADLINE_KEY: str(deadline)}
        content, headers = self._body(observation)
        try:
            response = await self._client.post("/v1/plan", headers=headers | told, **content)
        except httpx.HTTPError as error:
            raise Lost(f"{type(error).__name__}: {error}") from error
        if response.is_error:
            raise problem_error(response)
        return from_json(orjson.loads(response.content))

    async def close(self) -> None:
        """The client belongs to whoever made it."""

    def _body(self, observation: Observation) -> tuple[dict[str, Any], dict[str, str]]:
        """What httpx is given as the content, and the headers that belong to it."""
        facts = _facts(observation)
        if not self._multipart:
            body = orjson.dumps(facts | {"images": [_image(image) for image in observation.images]})
            return {"content": body}, {"content-type": "application/json"}
        parts = {"request": (None, orjson.dumps(facts), "application/json")}
        pictures = {i.camera: (i.camera, i.data, f"image/{i.encoding}") for i in observation.images}
        return {"files": parts | pictures}, {}


class GrpcWire:
    """Over gRPC, on a connection of its own."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._client = AsyncPlanClient(target)

    async def ask(self, observation: Observation) -> Reply:
        try:
            async with asyncio.timeout(PATIENCE_S):  # not told to gRPC: the service would take it for a deadline
                return from_chunk(await self._client.plan(observation))
        except TimeoutError as error:
            raise Lost(f"no answer within {PATIENCE_S:.0f} s") from error
        except NotReady as error:
            if error.message.startswith(f"{self._target}: "):  # gRPC's own words: the service had no say
                raise Lost(error.message) from error
            raise

    async def close(self) -> None:
        await self._client.close()


def wire_for(edge: Edge, client: httpx.AsyncClient, grpc: str | None) -> Wire:
    """A robot's wire. Raises ValueError when the service's gRPC address is needed and not known."""
    if edge != "grpc":
        return HttpWire(client, multipart=edge == "http-multipart")
    if grpc is None:
        raise ValueError("robots of this scenario speak gRPC: the service's HOST:PORT for it is needed as well")
    return GrpcWire(grpc)


def problem_error(response: httpx.Response) -> WavserveError:
    """An HTTP problem document as the error that it tells of."""
    try:
        problem = orjson.loads(response.content)
        name, detail = str(problem["type"]).removeprefix(_PROBLEM), str(problem["detail"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return WavserveError(f"HTTP {response.status_code} without a problem document")
    match name:
        case "overloaded":
            return Overloaded(detail, float(problem.get("retry_after_s", 1.0)))
        case "deadline-exceeded":
            return DeadlineExceeded(detail)
        case "unknown-session":
            return UnknownSession("session_id", problem.get("expected"), problem.get("actual"))
        case "not-ready":
            return NotReady(detail)
        case _:
            return WavserveError(f"{name}: {detail}")


def _facts(sent: Observation) -> dict[str, Any]:
    return {
        "instruction": sent.instruction,
        "state": sent.state,
        "session_id": sent.session_id,
        "sequence": sent.sequence,
        "control_step": sent.control_step,
        "executed_steps": sent.executed_steps,
        "planner": dict(sent.options),
        "seed": sent.seed,
        "deadline_ms": sent.deadline_ms,
    }


def _image(image: EncodedImage) -> dict[str, str]:
    return {"camera": image.camera, "encoding": image.encoding, "data": base64.b64encode(image.data).decode()}
