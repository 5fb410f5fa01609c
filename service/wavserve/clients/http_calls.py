"""The calls of the contract over HTTP: their requests, their answers, and typed errors. Opens no connection."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from wavserve.clients.calls import GRACE_S, POLICY_TIMEOUT_S, RESET_TIMEOUT_S, said_beside
from wavserve.core import errors
from wavserve.core.messages import (
    EMPTY_IS_NONE,
    OPTIONAL_FIELDS,
    PLAIN_FIELDS,
    ActionChunk,
    Observation,
    PolicyInfo,
    json_integer,
)
from wavserve.core.remote_errors import rebuild_served
from wavserve.core.rtc import RtcRequest
from wavserve.pb import wavserve_pb2 as pb
from wavserve.wire import parts, requests
from wavserve.wire.json_answers import chunk_from_json, policy_from_json

Answer = TypeVar("Answer")

_MEDIA = {"jpeg": "image/jpeg", "png": "image/png"}
_RAW_MEDIA = "application/octet-stream"
_PROBLEM = "urn:wavserve:problem:"
_GATEWAY_ERRORS = (502, 503, 504)
"""Of a proxy between robot and server, which has no server to ask."""


@dataclass(frozen=True, slots=True)
class HttpCall(Generic[Answer]):
    """One request, and a function that reads the JSON of its answer."""

    method: str
    path: str
    read: Callable[[Any], Answer]
    files: list[tuple[str, Any]] | None = None
    """parts of a multipart body; None: no body"""
    deadline_ms: int | None = None
    """of a plan, from its receipt; also sent as a header"""
    timeout_s: float | None = None
    """how long the call may take unless the caller says otherwise; None: until the link is found dead"""
    traceparent: str = ""
    """of the span that the call is a part of; empty: none"""

    @property
    def headers(self) -> dict[str, str]:
        return said_beside(self.deadline_ms, self.traceparent)


def plan_call(observation: Observation) -> HttpCall[ActionChunk]:
    """`POST /v1/plan`, multipart. Raises InvalidRequest or UnsupportedMedia, as the gRPC call does."""
    message = requests.plan_request(_without_rtc(observation))
    images = [parts.image_from(image) for image in message.images]
    body = _body(message, observation.rtc)
    body["images"] = [_described(image) for image in images]
    files: list[tuple[str, Any]] = [("request", (None, json.dumps(body), "application/json"))]
    for image in images:
        files.append((image.camera, (image.camera, image.data, _MEDIA.get(image.encoding, _RAW_MEDIA))))
    deadline_ms = message.deadline_ms if message.HasField("deadline_ms") else None
    return HttpCall(
        "POST",
        "/v1/plan",
        chunk_from_json,
        files,
        deadline_ms=deadline_ms,
        timeout_s=None if deadline_ms is None else deadline_ms / 1e3 + GRACE_S,
    )


def reset_call(session_id: str) -> HttpCall[None]:
    """`POST /v1/sessions/{session_id}/reset`. Raises InvalidRequest."""
    parts.assign(pb.ResetRequest(), "session_id", session_id)
    path = f"/v1/sessions/{quote(session_id, safe='')}/reset"
    return HttpCall("POST", path, lambda _: None, timeout_s=RESET_TIMEOUT_S)


def end_call(session_id: str) -> HttpCall[None]:
    """`DELETE /v1/sessions/{session_id}`. Raises InvalidRequest."""
    parts.assign(pb.ResetRequest(), "session_id", session_id)
    path = f"/v1/sessions/{quote(session_id, safe='')}"
    return HttpCall("DELETE", path, lambda _: None, timeout_s=RESET_TIMEOUT_S)


def policy_call(name: str | None) -> HttpCall[PolicyInfo]:
    """`GET /v1/policies`. The answer raises UnknownPolicy when `name` is not served."""

    def read(content: Any) -> PolicyInfo:
        try:
            [served] = content["policies"]
        except (TypeError, KeyError, ValueError):
            raise errors.InvalidAnswer(f"policies: expected one, got {errors.shown(content)}") from None
        policy = policy_from_json(served)
        if name not in (None, policy.name):
            raise errors.UnknownPolicy("policy", policy.name, errors.shown(name))
        return policy

    return HttpCall("GET", "/v1/policies", read, timeout_s=POLICY_TIMEOUT_S)


def typed_error(target: str, status: int, body: bytes) -> errors.WavserveError:
    """The error in a problem document; without one, an error with the status."""
    problem = _json(body)
    kind = problem.get("type") if isinstance(problem, dict) else None
    if not isinstance(problem, dict) or not str(kind).startswith(_PROBLEM):
        text = f"{target}: HTTP status {status}, without a problem document"
        return errors.NotReady(text) if status in _GATEWAY_ERRORS else errors.WavserveError(text)
    name, detail, error_id = str(kind).removeprefix(_PROBLEM), str(problem.get("detail", "")), problem.get("instance")
    error_id = None if error_id is None else str(error_id)
    return rebuild_served(name, detail, problem, error_id, problem.get("retryable") is True)


def read_answer(call: HttpCall[Answer], body: bytes) -> Answer:
    """The answer in a body. Raises InvalidAnswer."""
    content = _json(body)
    if content is None:
        raise errors.InvalidAnswer(f"answer: expected JSON, got {len(body)} bytes that are none")
    return call.read(content)


def _json(body: bytes) -> Any:
    """None for bytes that are no JSON."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _without_rtc(observation: Observation) -> Observation:
    """The fields that the body takes from the protobuf request, which checks their types."""
    return observation if observation.rtc is None else replace(observation, rtc=None)


def _body(message: pb.PlanRequest, rtc: RtcRequest | None) -> dict[str, Any]:
    body: dict[str, Any] = {name: getattr(message, name) for name in PLAIN_FIELDS}
    body |= {name: getattr(message, name) or None for name in EMPTY_IS_NONE}
    body |= {name: getattr(message, name) for name in OPTIONAL_FIELDS if message.HasField(name)}
    body = {name: json_integer(value) if isinstance(value, int) else value for name, value in body.items()}
    body |= {"state": list(message.state), "planner": parts.options_from(message.planner)}
    if rtc is not None:
        body["rtc"] = {**asdict(rtc), "prev_chunk_left_over": rtc.prev_chunk_left_over.tolist()}
    return body


def _described(image: Any) -> dict[str, Any]:
    """An image's facts besides its bytes."""
    facts = {name: getattr(image, name) for name in ("camera", "encoding", "height", "width", "channels")}
    return facts | {"captured_mono_ns": json_integer(image.captured_mono_ns)}
