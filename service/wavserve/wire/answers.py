"""Answers as protobuf and back: the gRPC edge writes them, the robot client reads them. Seconds become milliseconds."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, cast

import numpy as np

from wavserve.core.messages import Chunk, PolicyInfo, Vector
from wavserve.core.spec import CameraSpec, PlannerBounds, PlannerConfig
from wavserve.core.types import DeadlineResult, IterationRecord, Receipt, Stop
from wavserve.pb import wavserve_pb2 as pb
from wavserve.wire import parts

_DEADLINES = {
    DeadlineResult.NONE: pb.Receipt.NONE,
    DeadlineResult.MET: pb.Receipt.MET,
    DeadlineResult.MET_DEGRADED: pb.Receipt.MET_DEGRADED,
}
_STOPS = {
    Stop.DONE: pb.Receipt.DONE,
    Stop.OUT_OF_TIME: pb.Receipt.OUT_OF_TIME,
    Stop.SETTLED: pb.Receipt.SETTLED,
}
_STOP_REASONS = {number: stop for stop, number in _STOPS.items()}
_DEADLINE_RESULTS = {number: result for result, number in _DEADLINES.items()}


def action_chunk(chunk: Chunk) -> pb.ActionChunk:
    """An answer as protobuf."""
    horizon, action_dim = chunk.actions.shape
    imagined = chunk.imagined.items()
    return pb.ActionChunk(
        session_id=chunk.session_id,
        sequence=chunk.sequence,
        first_control_step=chunk.first_control_step,
        horizon=horizon,
        action_dim=action_dim,
        dt_ns=chunk.dt_ns,
        actions=chunk.actions.ravel().tolist(),
        valid_until_step=chunk.valid_until_step,
        receipt=receipt_message(chunk.receipt),
        imagined=[
            pb.ImaginedFrames(camera=camera, frames=[parts.image(i) for i in frames]) for camera, frames in imagined
        ],
        chunk_id=chunk.chunk_id,
        captured_mono_ns=chunk.captured_mono_ns,
        server_recv_ns=chunk.server_recv_ns,
        server_send_ns=chunk.server_send_ns,
        warnings=chunk.warnings,
    )


def chunk_from(message: pb.ActionChunk) -> Chunk:
    """An answer read back; actions are `[T, A]`."""
    actions = np.asarray(message.actions, np.float32).reshape(message.horizon, message.action_dim)
    return Chunk(
        session_id=message.session_id,
        sequence=message.sequence,
        first_control_step=message.first_control_step,
        dt_ns=message.dt_ns,
        actions=actions,
        valid_until_step=message.valid_until_step,
        receipt=receipt_from(message.receipt),
        imagined={entry.camera: tuple(parts.image_from(frame) for frame in entry.frames) for entry in message.imagined},
        chunk_id=message.chunk_id,
        captured_mono_ns=message.captured_mono_ns,
        server_recv_ns=message.server_recv_ns,
        server_send_ns=message.server_send_ns,
        warnings=tuple(message.warnings),
    )


def receipt_message(receipt: Receipt) -> pb.Receipt:
    """A receipt as protobuf; seconds become milliseconds."""
    return pb.Receipt(
        policy=receipt.policy,
        policy_digest=receipt.policy_digest,
        untrained=receipt.untrained,
        seed=receipt.seed,
        sequence=receipt.sequence,
        planner=parts.options(asdict(receipt.config)),
        iterations_done=receipt.iterations_done,
        stopped=_STOPS[receipt.stopped],
        warm_start=receipt.warm_start,
        deadline=_DEADLINES[receipt.deadline],
        slack_ms=None if receipt.slack_s is None else receipt.slack_s * 1e3,
        iterations=[_iteration(record) for record in receipt.iterations],
        stage_ms={stage: seconds * 1e3 for stage, seconds in receipt.stage_s.items()},
        value_estimate=receipt.value_estimate,
        digests=dict(receipt.digests),
        version=receipt.version,
    )


def receipt_from(message: pb.Receipt) -> Receipt:
    """A receipt read back."""
    config = PlannerConfig(**cast(Any, parts.options_from(message.planner)))
    return Receipt(
        policy=message.policy,
        policy_digest=message.policy_digest,
        untrained=message.untrained,
        seed=message.seed,
        sequence=message.sequence,
        config=config,
        iterations_done=message.iterations_done,
        stopped=_STOP_REASONS[message.stopped],
        warm_start=message.warm_start,
        deadline=_DEADLINE_RESULTS[message.deadline],
        slack_s=message.slack_ms / 1e3 if message.HasField("slack_ms") else None,
        iterations=tuple(_iteration_from(entry, config.num_value_samples) for entry in message.iterations),
        stage_s={stage: ms / 1e3 for stage, ms in message.stage_ms.items()},
        value_estimate=message.value_estimate if message.HasField("value_estimate") else None,
        digests=dict(message.digests),
        version=message.version,
    )


def policy_message(info: PolicyInfo) -> pb.PolicyInfo:
    """A policy's facts as protobuf."""
    return pb.PolicyInfo(
        name=info.name,
        digest=info.digest,
        untrained=info.untrained,
        cameras=[pb.Camera(name=c.name, height=c.height, width=c.width, resize=c.resize) for c in info.cameras],
        state=pb.Vector(names=info.state.names, units=info.state.units),
        action=pb.Vector(names=info.action.names, units=info.action.units),
        horizon=info.horizon,
        control_hz=info.control_hz,
        history_frames=info.history_frames,
        max_instruction_bytes=info.max_instruction_bytes,
        defaults=parts.options(asdict(info.defaults)),
        bounds=asdict(info.bounds),
        notes=info.notes,
        max_message_bytes=info.max_message_bytes,
    )


def policy_from(message: pb.PolicyInfo) -> PolicyInfo:
    """A policy's facts read back."""
    return PolicyInfo(
        name=message.name,
        digest=message.digest,
        untrained=message.untrained,
        cameras=tuple(CameraSpec(c.name, c.height, c.width, cast(Any, c.resize)) for c in message.cameras),
        state=Vector(tuple(message.state.names), tuple(message.state.units)),
        action=Vector(tuple(message.action.names), tuple(message.action.units)),
        horizon=message.horizon,
        control_hz=message.control_hz,
        history_frames=message.history_frames,
        max_instruction_bytes=message.max_instruction_bytes,
        defaults=PlannerConfig(**cast(Any, parts.options_from(message.defaults))),
        bounds=PlannerBounds(**dict(message.bounds)),
        notes=message.notes,
        max_message_bytes=message.max_message_bytes,
    )


def _iteration(record: IterationRecord) -> pb.Iteration:
    return pb.Iteration(
        snr=record.snr.ravel().tolist(),
        scores=record.scores.tolist(),
        video_elites=record.video_elites,
        value_elites=record.value_elites,
        video_std=record.video_std,
        value_std=record.value_std,
        moved=record.moved,
    )


def _iteration_from(message: pb.Iteration, num_value_samples: int) -> IterationRecord:
    return IterationRecord(
        snr=np.asarray(message.snr, np.float32).reshape(-1, num_value_samples),
        video_elites=tuple(message.video_elites),
        value_elites=tuple(message.value_elites),
        video_std=message.video_std,
        value_std=message.value_std,
        moved=message.moved,
    )
