"""Answers as JSON: the fields of the protobuf messages under the same names, matrices as nested lists.

Called by `http_api`. float32 numbers are written with the fewest digits that read back as the same float32.
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

from wavserve.core.messages import Chunk, EncodedImage, PolicyInfo
from wavserve.core.types import IterationRecord, Receipt
from wavserve.edge.report import ErrorReport


def json_response(content: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer; numpy arrays and frozen dataclasses are written as they are."""
    body = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, status, headers, media_type="application/json")


def problem_response(problem: ErrorReport, headers: Mapping[str, str] | None = None) -> Response:
    """RFC 9457 problem details; what does not apply is left out."""
    facts = {
        "type": f"urn:wavserve:problem:{problem.name}",
        "title": problem.status.title,
        "status": problem.status.http,
        "detail": problem.detail,
        "instance": problem.error_id,
        "retryable": problem.retryable,
        "retry_after_s": problem.retry_after_s,
        "field": problem.field,
        "expected": problem.expected,
        "actual": problem.actual,
        **problem.facts,
    }
    told = {name: value for name, value in facts.items() if value is not None}
    more = {} if problem.retry_after_s is None else {"retry-after": str(math.ceil(problem.retry_after_s))}
    body = orjson.dumps(told)
    return Response(body, problem.status.http, {**(headers or {}), **more}, media_type="application/problem+json")


def chunk_json(chunk: Chunk) -> dict[str, Any]:
    """A chunk of actions, as `http_models.ChunkAnswer` documents it."""
    horizon, action_dim = chunk.actions.shape
    return {
        "session_id": chunk.session_id,
        "sequence": chunk.sequence,
        "first_control_step": chunk.first_control_step,
        "horizon": horizon,
        "action_dim": action_dim,
        "dt_ns": chunk.dt_ns,
        "actions": np.ascontiguousarray(chunk.actions),
        "valid_until_step": chunk.valid_until_step,
        "receipt": receipt_json(chunk.receipt),
        "imagined": [
            {"camera": name, "frames": [_image(f) for f in frames]} for name, frames in chunk.imagined.items()
        ],
        "chunk_id": chunk.chunk_id,
        "captured_mono_ns": chunk.captured_mono_ns,
        "server_recv_ns": chunk.server_recv_ns,
        "server_send_ns": chunk.server_send_ns,
        "warnings": chunk.warnings,
    }


def receipt_json(receipt: Receipt) -> dict[str, Any]:
    """A receipt; seconds become milliseconds."""
    return {
        "policy": receipt.policy,
        "policy_digest": receipt.policy_digest,
        "untrained": receipt.untrained,
        "seed": receipt.seed,
        "sequence": receipt.sequence,
        "planner": asdict(receipt.config),
        "iterations_done": receipt.iterations_done,
        "stopped": receipt.stopped.value,
        "warm_start": receipt.warm_start,
        "deadline": receipt.deadline.value,
        "slack_ms": None if receipt.slack_s is None else receipt.slack_s * 1e3,
        "iterations": [_iteration(record) for record in receipt.iterations],
        "stage_ms": {stage: seconds * 1e3 for stage, seconds in receipt.stage_s.items()},
        "value_estimate": receipt.value_estimate,
        "digests": dict(receipt.digests),
        "version": receipt.version,
    }


def policy_json(info: PolicyInfo) -> dict[str, Any]:
    """A policy's facts; the dataclass has the contract's names."""
    return asdict(info)


def _iteration(record: IterationRecord) -> dict[str, Any]:
    return {
        "snr": np.ascontiguousarray(record.snr),
        "scores": record.scores,
        "video_elites": record.video_elites,
        "value_elites": record.value_elites,
        "video_std": record.video_std,
        "value_std": record.value_std,
        "moved": record.moved,
    }


def _image(image: EncodedImage) -> dict[str, Any]:
    return asdict(image) | {"data": base64.b64encode(image.data).decode()}
