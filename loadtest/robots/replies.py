"""A plan's reply, the same for every transport, and the check that it agrees with its request and with itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from wavserve.core.messages import ActionChunk, Observation
from wavserve.core.types import Stop

ROUNDING_S = 1e-3
"""Tolerance of durations: they are sent in milliseconds and as rounded floats."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The fields of an action chunk that the load test reads. Durations are in seconds."""

    session_id: str
    sequence: int
    first_control_step: int
    num_steps: int
    chunk_id: str
    served_s: float
    """from the arrival of the request to the answer, on the service's clock"""
    receipt_sequence: int
    deadline: str
    slack_s: float | None
    iterations_done: int
    iterations_requested: int
    stopped: str
    """why planning ended: the value of a `types.Stop`"""
    stage_s: Mapping[str, float]


def from_chunk(chunk: ActionChunk) -> Reply:
    """The reply in an answer that came over gRPC."""
    receipt = chunk.receipt
    return Reply(
        session_id=chunk.session_id,
        sequence=chunk.sequence,
        first_control_step=chunk.first_control_step,
        num_steps=len(chunk.actions),
        chunk_id=chunk.chunk_id,
        served_s=(chunk.server_send_ns - chunk.server_recv_ns) / 1e9,
        receipt_sequence=receipt.sequence,
        deadline=receipt.deadline.value,
        slack_s=receipt.slack_s,
        iterations_done=receipt.iterations_done,
        iterations_requested=receipt.config.num_iterations,
        stopped=receipt.stopped.value,
        stage_s=receipt.stage_s,
    )


def from_json(answer: Mapping[str, Any]) -> Reply:
    """The reply in an answer that came over HTTP. A 64-bit integer is a number, or a text when it is large."""
    receipt = answer["receipt"]
    slack_ms = receipt["slack_ms"]
    served_ns = int(answer["server_send_ns"]) - int(answer["server_recv_ns"])
    return Reply(
        session_id=answer["session_id"],
        sequence=int(answer["sequence"]),
        first_control_step=int(answer["first_control_step"]),
        num_steps=len(answer["actions"]),
        chunk_id=answer["chunk_id"],
        served_s=served_ns / 1e9,
        receipt_sequence=int(receipt["sequence"]),
        deadline=receipt["deadline"],
        slack_s=None if slack_ms is None else slack_ms / 1e3,
        iterations_done=receipt["iterations_done"],
        iterations_requested=receipt["planner"]["num_iterations"],
        stopped=receipt["stopped"],
        stage_s={stage: ms / 1e3 for stage, ms in receipt["stage_ms"].items()},
    )


def contradictions(sent: Observation, reply: Reply, elapsed_s: float, min_steps: int) -> Iterator[str]:
    """Every way in which a reply contradicts its request or itself, as text. A correct reply has none.

    `elapsed_s` is the time that the robot waited. `min_steps` is the minimum length of the chunk.
    """
    if reply.sequence != sent.sequence or reply.receipt_sequence != sent.sequence:
        yield f"sequence: sent {sent.sequence}, answered {reply.sequence}, receipt {reply.receipt_sequence}"
    if sent.session_id is not None and reply.session_id != sent.session_id:
        yield "the answer belongs to another session"
    if reply.first_control_step != sent.control_step:
        yield f"control step: sent {sent.control_step}, answered {reply.first_control_step}"
    if reply.num_steps < min_steps:
        yield f"a chunk of {reply.num_steps} steps, expected at least {min_steps}"
    yield from _receipt_contradictions(sent, reply)
    if reply.served_s > elapsed_s + ROUNDING_S:
        yield f"served in {reply.served_s:.4f} s, longer than the robot waited, {elapsed_s:.4f} s"


def _receipt_contradictions(sent: Observation, reply: Reply) -> Iterator[str]:
    cut_short = reply.iterations_done < reply.iterations_requested and reply.stopped != Stop.SETTLED.value
    in_time = "met_degraded" if cut_short else "met"
    with_deadline = "late" if reply.slack_s is not None and reply.slack_s < 0 else in_time
    expected = "none" if sent.deadline_ms is None else with_deadline
    if reply.deadline != expected:
        done = f"{reply.iterations_done} of {reply.iterations_requested} iterations"
        yield f"receipt: deadline {reply.deadline} with {done}, expected {expected}"
    if (reply.slack_s is None) != (sent.deadline_ms is None):
        yield f"receipt: slack {reply.slack_s} with a deadline of {sent.deadline_ms} ms"
    if reply.stage_s.get("total", 0.0) > reply.served_s + ROUNDING_S:
        yield "receipt: its total is longer than the service took"
