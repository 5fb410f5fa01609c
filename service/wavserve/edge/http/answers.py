"""Answers as JSON. Fields have the names of the protobuf messages' fields; matrices are nested lists.

float32 numbers are written with the fewest digits that read back as the same float32.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import orjson
from starlette.responses import Response

from wavserve.core.messages import ActionChunk, EncodedImage, PolicyInfo, json_integer
from wavserve.core.types import Receipt
from wavserve.edge.report import ErrorReport
from wavserve.wire.answers import INT64_FIELDS, chunk_fields, policy_fields, receipt_fields


def json_response(content: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer. `content` may contain numpy arrays and dataclasses."""
    body = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, status, headers, media_type="application/json")


def problem_response(problem: ErrorReport, headers: Mapping[str, str] | None = None) -> Response:
    """RFC 9457 problem details."""
    facts = {
        "type": f"urn:wavserve:problem:{problem.name}",
        "title": problem.status.title,
        "status": problem.status.http,
        "detail": problem.detail,
        "instance": problem.error_id,
        **problem.all_facts(),
    }
    wait = {} if problem.retry_after_s is None else {"retry-after": str(math.ceil(problem.retry_after_s))}
    body = orjson.dumps(facts)
    return Response(body, problem.status.http, {**(headers or {}), **wait}, media_type="application/problem+json")


def chunk_json(chunk: ActionChunk) -> dict[str, Any]:
    """A chunk of actions, in the form that `answer_schemas.ChunkAnswer` documents."""
    return {
        **_integers(chunk_fields(chunk)),
        "actions": np.ascontiguousarray(chunk.actions),
        "receipt": receipt_json(chunk.receipt),
        "imagined": [
            {"camera": camera, "frames": [_image(frame) for frame in frames]}
            for camera, frames in chunk.imagined.items()
        ],
    }


def receipt_json(receipt: Receipt) -> dict[str, Any]:
    """A receipt, in the form that `answer_schemas.ReceiptAnswer` documents."""
    fields = _integers(receipt_fields(receipt))
    iterations = [{**each, "snr": np.ascontiguousarray(each["snr"])} for each in fields["iterations"]]
    return {**fields, "iterations": iterations}


def policy_json(info: PolicyInfo) -> dict[str, Any]:
    """A policy's facts, in the form that `answer_schemas.PolicyAnswer` documents."""
    return _integers(policy_fields(info))


def _integers(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields, where a 64-bit integer that a float64 might round is a text."""
    return fields | {name: json_integer(fields[name]) for name in INT64_FIELDS & fields.keys()}


def _image(image: EncodedImage) -> dict[str, Any]:
    return _integers(asdict(image)) | {"data": base64.b64encode(image.data).decode()}
