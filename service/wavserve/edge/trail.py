"""What a request for a plan leaves behind: its span, and its line of JSON. Knows no wire format.

Both hold ids and numbers. Neither holds an image, a state or an action, and an instruction only where it is asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import monotonic_ns

from wavserve.core.errors import Cancelled, DeadlineExceeded, MissedDeadline, Overloaded
from wavserve.core.messages import ActionChunk, Observation
from wavserve.core.tracing import Attributes, TraceContext, Tracer, current, within
from wavserve.edge.refusals import OnFailed, ignore_failure
from wavserve.edge.status import name_of
from wavserve.planning.timings import Progress


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks for a plan, and how."""

    sender: str
    """who pays for parsing and decoding: the client's address, or its connection where it has none"""
    edge: str
    """http, grpc, control or websocket"""
    robot: str = ""
    """its id on a stream; empty elsewhere"""
    parent: TraceContext | None = None
    """the trace that it belongs to at the caller; None: it begins here"""


@dataclass(slots=True)
class PlanNote:
    """What is known of one request for a plan. It is written as the request goes on."""

    deadline: float | None = None
    """monotonic, s"""
    observation: Observation | None = None
    """None: it could not be read, or the request was refused before"""
    chunk: ActionChunk | None = None
    progress: Progress = field(default_factory=Progress)


@dataclass(frozen=True, slots=True)
class Trail:
    """Where requests leave their spans and lines. By default they leave none."""

    tracer: Tracer = field(default_factory=Tracer)
    on_line: Callable[[Mapping[str, object]], None] | None = None
    """takes the line of each request; None: no lines"""
    spans_tell_instructions: bool = False
    lines_tell_instructions: bool = False
    on_failed: OnFailed = ignore_failure

    @contextmanager
    def follow(self, caller: Caller, received_ns: int, policy_digest: str) -> Iterator[PlanNote]:
        """Follows one request from its receipt to its end, and lets its failure pass."""
        note, failure = PlanNote(), None
        parts = {"wavserve.edge": caller.edge, "wavserve.robot": caller.robot}
        with within(self.tracer.begin("gateway.plan", caller.parent, parts, received_ns)) as span:
            try:
                yield note
            except BaseException as error:
                failure = error
                if isinstance(error, Exception):
                    self.on_failed(error, caller.robot or caller.sender)
                raise
            finally:
                if span.recorded:
                    span.set(_facts(note, self.spans_tell_instructions))
                if self.on_line is not None:
                    self.on_line(self._line(caller, note, failure, received_ns) | {"policy_digest": policy_digest})

    def _line(
        self, caller: Caller, note: PlanNote, failure: BaseException | None, received_ns: int
    ) -> dict[str, object]:
        now_ns, seen, chunk, trace = monotonic_ns(), note.observation, note.chunk, current().context
        missed = failure.missed if isinstance(failure, DeadlineExceeded) else None
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "event": "plan",
            "outcome": _outcome(failure),
            "error": None if failure is None else _name(failure),
            "edge": caller.edge,
            "sender": caller.sender,
            "robot": caller.robot or None,
            "session": chunk.session_id if chunk is not None else seen and seen.session_id,
            "epoch": seen and seen.epoch,
            "sequence": seen and seen.sequence,
            "chunk": chunk and chunk.chunk_id,
            "device": note.progress.device or None,
            **_spent(note, missed),
            "ms": round((now_ns - received_ns) / 1e6, 3),
            **_deadline(note, missed, received_ns, now_ns),
            "stage_ms": {stage: round(1e3 * seconds, 3) for stage, seconds in _stages(note).items()},
            "trace_id": trace and trace.trace_id,
        }
        if self.lines_tell_instructions:
            line["instruction"] = seen and seen.instruction
        return line


def _name(failure: BaseException) -> str:
    """As clients and metrics have it."""
    return "cancelled" if isinstance(failure, asyncio.CancelledError) else name_of(failure)


def _outcome(failure: BaseException | None) -> str:
    match failure:
        case None:
            return "answered"
        case DeadlineExceeded(missed=MissedDeadline()):
            return "missed"
        case DeadlineExceeded() | Overloaded():
            return "refused"
        case Cancelled() | asyncio.CancelledError():
            return "cancelled"
        case _:
            return "failed"


def _spent(note: PlanNote, missed: MissedDeadline | None) -> dict[str, object]:
    """K as it was done and as it was asked for, N and M."""
    if note.chunk is not None:
        receipt = note.chunk.receipt
        done, asked = receipt.iterations_done, receipt.config.num_iterations
        return _samples(done, asked, receipt.config.num_video_samples, receipt.config.num_value_samples)
    if missed is not None:
        return _samples(missed.iterations_done, None, missed.num_video_samples, missed.num_value_samples)
    return _samples(note.progress.iterations, None, None, None)


def _samples(done: int, asked: int | None, video: int | None, value: int | None) -> dict[str, object]:
    return {"iterations": done, "iterations_asked": asked, "video_samples": video, "value_samples": value}


def _deadline(note: PlanNote, missed: MissedDeadline | None, received_ns: int, now_ns: int) -> dict[str, object]:
    """The deadline from receipt, what was left of it at the end, and what the receipt says of it."""
    result = None if note.chunk is None else note.chunk.receipt.deadline.value
    if note.deadline is None:
        return {"deadline": result, "deadline_ms": None, "margin_ms": None}
    margin_ms = 1e3 * note.deadline - now_ns / 1e6 if missed is None else missed.slack_ms
    after_ms = 1e3 * note.deadline - received_ns / 1e6
    return {"deadline": result, "deadline_ms": round(after_ms, 3), "margin_ms": round(margin_ms, 3)}


def _stages(note: PlanNote) -> Mapping[str, float]:
    """Seconds by stage. A retry has those of the plan that it joined."""
    return note.progress.seconds if note.chunk is None else note.chunk.receipt.stage_s


def _facts(note: PlanNote, instruction: bool) -> Attributes:
    """For the span. A session's id is none of them: who has it can act for the robot."""
    facts: dict[str, str | int] = {}
    if (seen := note.observation) is not None:
        facts = {"wavserve.sequence": seen.sequence}
        if instruction:
            facts["wavserve.instruction"] = seen.instruction
    if (chunk := note.chunk) is not None:
        config = chunk.receipt.config
        facts |= {
            "wavserve.chunk": chunk.chunk_id,
            "wavserve.deadline": chunk.receipt.deadline.value,
            "wavserve.iterations": chunk.receipt.iterations_done,
            "wavserve.video_samples": config.num_video_samples,
            "wavserve.value_samples": config.num_value_samples,
        }
    return facts
