"""What comes back for one ask, whichever edge it came by, and whether it is consistent in itself and with the ask.

Made by `wires`, checked by the robot, read by the figures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from wavserve.core.messages import ActionChunk, Observation
from wavserve.core.types import Stop

ROUNDING_S = 1e-3
"""Durations travel as milliseconds and in floats of their own."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer with actions: what of it is looked at. Seconds, steps and counts."""

    session_id: str
    sequence: int
    first_control_step: int
    num_steps: int
    chunk_id: str
    served_s: float
    """from the request's receipt to the answer, on the service's own clock"""
    receipt_sequence: int
    deadline: str
    slack_s: float | None
    iterations_done: int
    iterations_asked: int
    stopped: str
    """why planning ended: a `types.Stop` value"""
    stage_s: Mapping[str, float]


def from_chunk(chunk: ActionChunk) -> Reply:
    """A reply that came over gRPC."""
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
        iterations_asked=receipt.config.num_iterations,
        stopped=receipt.stopped.value,
        stage_s=receipt.stage_s,
    )


def from_json(answer: Mapping[str, Any]) -> Reply:
    """A reply that came over HTTP."""
    receipt = answer["receipt"]
    slack_ms = receipt["slack_ms"]
    return Reply(
        session_id=answer["session_id"],
        sequence=answer["sequence"],
        first_control_step=answer["first_control_step"],
        num_steps=len(answer["actions"]),
        chunk_id=answer["chunk_id"],
        served_s=(answer["server_send_ns"] - answer["server_recv_ns"]) / 1e9,
        receipt_sequence=receipt["sequence"],
        deadline=receipt["deadline"],
        slack_s=None if slack_ms is None else slack_ms / 1e3,
        iterations_done=receipt["iterations_done"],
        iterations_asked=receipt["planner"]["num_iterations"],
        stopped=receipt["stopped"],
        stage_s={stage: ms / 1e3 for stage, ms in receipt["stage_ms"].items()},
    )


def faults(asked: Observation, reply: Reply, elapsed_s: float, needed: int) -> Iterator[str]:
    """What is wrong with an answer, in words; nothing as a rule.

    `elapsed_s`: how long the robot waited; `needed`: steps that its chunks must have.
    """
    if reply.sequence != asked.sequence or reply.receipt_sequence != asked.sequence:
        yield f"sequence: asked {asked.sequence}, answered {reply.sequence}, receipt {reply.receipt_sequence}"
    if asked.session_id is not None and reply.session_id != asked.session_id:
        yield "the answer belongs to another session"
    if reply.first_control_step != asked.control_step:
        yield f"control step: asked {asked.control_step}, answered {reply.first_control_step}"
    if reply.num_steps < needed:
        yield f"a chunk of {reply.num_steps} steps, of which {needed} are to be executed"
    yield from _receipt_faults(asked, reply)
    if reply.served_s > elapsed_s + ROUNDING_S:
        yield f"served in {reply.served_s:.4f} s, longer than the robot waited, {elapsed_s:.4f} s"


def _receipt_faults(asked: Observation, reply: Reply) -> Iterator[str]:
    short = reply.iterations_done < reply.iterations_asked and reply.stopped != Stop.SETTLED.value
    bounded = "met_degraded" if short else "met"
    expected = "none" if asked.deadline_ms is None else bounded
    if reply.deadline != expected:
        done = f"{reply.iterations_done} of {reply.iterations_asked} iterations"
        yield f"receipt: deadline {reply.deadline} with {done}, expected {expected}"
    if (reply.slack_s is None) != (asked.deadline_ms is None):
        yield f"receipt: slack {reply.slack_s} with a deadline of {asked.deadline_ms} ms"
    if reply.slack_s is not None and reply.slack_s < 0:
        yield f"receipt: deadline {reply.deadline} with a slack of {reply.slack_s:.4f} s"
    if reply.stage_s.get("total", 0.0) > reply.served_s + ROUNDING_S:
        yield "receipt: its total is longer than the service took"
