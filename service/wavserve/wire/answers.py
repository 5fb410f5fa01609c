"""Converts answers to the contract's field names and to protobuf, and back.

HTTP and gRPC build an answer from the same fields. JSON and protobuf differ only in matrices and images. A server of
another version may send more than we know: unknown fields are ignored, and what we cannot read is InvalidAnswer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from enum import Enum
from typing import Any, TypeVar, cast

import numpy as np

from wavserve.core.errors import BrokenLimit, InvalidAnswer, shown
from wavserve.core.messages import ActionChunk, PolicyInfo
from wavserve.core.rtc import AppliedRtc
from wavserve.core.spec import PREFIX_SCHEDULES, RTC_MODES, CameraSpec, PlannerBounds, PlannerConfig, RtcSpec
from wavserve.core.types import Array, DeadlineResult, IterationRecord, Receipt, Stop
from wavserve.pb import wavserve_pb2 as pb
from wavserve.wire import parts, vectors

E = TypeVar("E", bound=Enum)
M = TypeVar("M")

INT64_FIELDS = frozenset(
    field.name
    for message in (pb.ActionChunk, pb.Receipt, pb.PolicyInfo, pb.Image)
    for field in message.DESCRIPTOR.fields
    if field.cpp_type in (field.CPPTYPE_INT64, field.CPPTYPE_UINT64)
)
"""Fields whose integers may exceed what JSON carries exactly."""
_ENCODED_BY_WIRE = {"actions", "receipt", "imagined", "epoch"}
"""Fields of a chunk that each wire encodes in its own way."""
_RENAMED = {
    *("config", "stopped", "deadline", "slack_s", "stage_s", "iterations", "value_estimate", "rtc", "seam_jump"),
    "expected_return",
}
"""Fields of a receipt that have another name or form on a wire, or that a wire may omit."""


def chunk_fields(chunk: ActionChunk) -> dict[str, Any]:
    """A chunk's fields under the contract's names. Each wire adds `actions`, `receipt` and `imagined` itself."""
    horizon, action_dim = chunk.actions.shape
    same = {each.name: getattr(chunk, each.name) for each in fields(chunk) if each.name not in _ENCODED_BY_WIRE}
    cut = None if chunk.cut is None else asdict(chunk.cut)
    return {**same, "cut": cut, "horizon": horizon, "action_dim": action_dim}


def receipt_fields(receipt: Receipt) -> dict[str, Any]:
    """A receipt's fields under the contract's names. Seconds become milliseconds; enums become their values."""
    same = {each.name: getattr(receipt, each.name) for each in fields(receipt) if each.name not in _RENAMED}
    return {
        **same,
        "planner": asdict(receipt.config),
        "value_estimate": receipt.value_estimate,
        "stopped": receipt.stopped.value,
        "deadline": receipt.deadline.value,
        "slack_ms": None if receipt.slack_s is None else receipt.slack_s * 1e3,
        "stage_ms": {stage: seconds * 1e3 for stage, seconds in receipt.stage_s.items()},
        "iterations": [iteration_fields(record) for record in receipt.iterations],
        "rtc": None if receipt.rtc is None else asdict(receipt.rtc),
        "seam_jump": receipt.seam_jump,
        "expected_return": receipt.expected_return,
    }


def iteration_fields(record: IterationRecord) -> dict[str, Any]:
    """An iteration's fields under the contract's names: the record's fields and the scores."""
    return {**{each.name: getattr(record, each.name) for each in fields(record)}, "scores": record.scores}


def action_chunk(chunk: ActionChunk) -> pb.ActionChunk:
    """A chunk as protobuf."""
    return pb.ActionChunk(
        **chunk_fields(chunk),
        epoch=chunk.epoch,
        actions=chunk.actions.ravel().tolist(),
        receipt=receipt_message(chunk.receipt),
        imagined=[
            pb.ImaginedFrames(camera=camera, frames=[parts.image(frame) for frame in frames])
            for camera, frames in chunk.imagined.items()
        ],
    )


def chunk_from(message: pb.ActionChunk) -> ActionChunk:
    """A chunk from protobuf. Actions are `[T, A]`, at least one. Raises InvalidAnswer."""
    actions = _matrix("actions", message.actions, message.horizon, message.action_dim)
    if not (actions.size and np.isfinite(actions).all()):
        raise InvalidAnswer(f"actions: expected finite numbers, at least one, got {shown(actions.tolist())}")
    names = [each.name for each in fields(ActionChunk) if each.name not in _ENCODED_BY_WIRE]
    same = {name: getattr(message, name) for name in names}
    return ActionChunk(
        **{**same, "warnings": tuple(message.warnings), "cut": _cut_from(message)},
        actions=actions,
        epoch=message.epoch,
        receipt=receipt_from(message.receipt),
        imagined={entry.camera: tuple(parts.image_from(frame) for frame in entry.frames) for entry in message.imagined},
    )


def _cut_from(message: pb.ActionChunk) -> BrokenLimit | None:
    if not message.HasField("cut"):
        return None
    return BrokenLimit(**{each.name: getattr(message.cut, each.name) for each in fields(BrokenLimit)})


def receipt_message(receipt: Receipt) -> pb.Receipt:
    """A receipt as protobuf."""
    values = receipt_fields(receipt)
    values |= {name: values[name].upper() for name in ("stopped", "deadline")}
    values["iterations"] = [_iteration(record) for record in values["iterations"]]
    values["rtc"] = None if receipt.rtc is None else _rtc_message(receipt.rtc)
    return pb.Receipt(**values)


def receipt_from(message: pb.Receipt) -> Receipt:
    """A receipt from protobuf. Raises InvalidAnswer."""
    config = PlannerConfig(**cast(Any, parts.options_from(message.planner)))
    same = {each.name: getattr(message, each.name) for each in fields(Receipt) if each.name not in _RENAMED}
    return Receipt(
        **{**same, "digests": dict(message.digests)},
        config=config,
        stopped=_member("receipt.stopped", Stop, pb.Receipt.Stop, message.stopped),
        deadline=_member("receipt.deadline", DeadlineResult, pb.Receipt.Deadline, message.deadline),
        slack_s=message.slack_ms / 1e3 if message.HasField("slack_ms") else None,
        value_estimate=message.value_estimate if message.HasField("value_estimate") else None,
        iterations=tuple(_iteration_from(entry, config) for entry in message.iterations),
        stage_s={stage: ms / 1e3 for stage, ms in message.stage_ms.items()},
        rtc=_applied_rtc_from(message.rtc) if message.HasField("rtc") else None,
        seam_jump=message.seam_jump if message.HasField("seam_jump") else None,
        expected_return=message.expected_return if message.HasField("expected_return") else None,
    )


def policy_fields(info: PolicyInfo) -> dict[str, Any]:
    """A policy's facts under the contract's names."""
    return asdict(info) | {"state": vectors.vector_fields(info.state), "action": vectors.vector_fields(info.action)}


def policy_message(info: PolicyInfo) -> pb.PolicyInfo:
    """A policy's facts as protobuf."""
    same = policy_fields(info)
    return pb.PolicyInfo(
        **same
        | {
            "state": vectors.vector_message(info.state),
            "action": vectors.vector_message(info.action),
            "defaults": parts.options(same["defaults"]),
            "rtc": _rtc_message(info.rtc),
            "rtc_modes": [mode.upper() for mode in info.rtc_modes],
        }
    )


def policy_from(message: pb.PolicyInfo) -> PolicyInfo:
    """A policy's facts from protobuf. Raises InvalidAnswer."""
    return PolicyInfo(
        name=message.name,
        digest=message.digest,
        untrained=message.untrained,
        cameras=tuple(
            CameraSpec(c.name, c.height, c.width, cast(Any, c.resize), cast(Any, c.orientation))
            for c in message.cameras
        ),
        state=vectors.vector_from("state", message.state),
        action=vectors.vector_from("action", message.action),
        horizon=message.horizon,
        control_hz=message.control_hz,
        history_frames=message.history_frames,
        max_instruction_bytes=message.max_instruction_bytes,
        defaults=PlannerConfig(**cast(Any, parts.options_from(message.defaults))),
        bounds=_bounds(message.bounds),
        notes=message.notes,
        max_message_bytes=message.max_message_bytes,
        embodiment=message.embodiment,
        action_kind=cast(Any, message.action_kind),
        rtc=_rtc_from(message.rtc),
        rtc_modes=tuple(
            mode for mode in RTC_MODES if pb.RealTimeChunking.Mode.Value(mode.upper()) in message.rtc_modes
        ),
        max_trained_delay=message.max_trained_delay,
        golden_digest=message.golden_digest,
    )


def _rtc_message(settings: RtcSpec) -> pb.RealTimeChunking:
    return pb.RealTimeChunking(**asdict(settings) | {"mode": settings.mode.upper()})


def _applied_rtc_from(message: pb.RealTimeChunking) -> AppliedRtc:
    return AppliedRtc(**asdict(_rtc_from(message)), inference_delay=message.inference_delay)


def _rtc_from(message: pb.RealTimeChunking) -> RtcSpec:
    """The settings of real-time chunking. Raises InvalidAnswer for a setting that we do not know."""
    modes = {pb.RealTimeChunking.Mode.Value(mode.upper()): mode for mode in RTC_MODES}
    schedules = {pb.RealTimeChunking.Schedule.Value(schedule): schedule for schedule in PREFIX_SCHEDULES}
    return RtcSpec(
        mode=_known("rtc.mode", modes, message.mode),
        prefix_attention_schedule=_known("rtc.prefix_attention_schedule", schedules, message.prefix_attention_schedule),
        max_guidance_weight=message.max_guidance_weight,
        execution_horizon=message.execution_horizon,
    )


def _iteration(values: dict[str, Any]) -> pb.Iteration:
    """An iteration's fields as protobuf. Protobuf has no matrices, so `snr` is sent row by row."""
    return pb.Iteration(**{**values, "snr": values["snr"].ravel().tolist(), "scores": values["scores"].tolist()})


def _iteration_from(message: pb.Iteration, config: PlannerConfig) -> IterationRecord:
    num_samples = config.num_video_samples if message.snr else 0  # nothing was scored in mode `fixed_shrink`
    return IterationRecord(
        snr=_matrix("receipt.iterations.snr", message.snr, num_samples, config.num_value_samples),
        video_elites=tuple(message.video_elites),
        value_elites=tuple(message.value_elites),
        video_std=message.video_std,
        value_std=message.value_std,
        moved=message.moved,
    )


def _matrix(field: str, numbers: Sequence[float], rows: int, columns: int) -> Array:
    """`[rows, columns]`. Raises InvalidAnswer for another count of numbers."""
    if len(numbers) != rows * columns:
        raise InvalidAnswer(f"{field}: expected {rows} x {columns} numbers, got {len(numbers)}")
    return np.asarray(numbers, np.float32).reshape(rows, columns)


def _member(field: str, enum: type[E], wire: Any, number: int) -> E:
    """The member of an enum for protobuf's number. Raises InvalidAnswer for a number without one."""
    return _known(field, {wire.Value(member.value.upper()): member for member in enum}, number)


def _known(field: str, members: Mapping[int, M], number: int) -> M:
    """What protobuf's number stands for. Raises InvalidAnswer for a number that stands for nothing here."""
    if number not in members:
        names = ", ".join(str(each.value if isinstance(each, Enum) else each) for each in members.values())
        raise InvalidAnswer(f"{field}: expected one of {names}, got number {number}")
    return members[number]


def _bounds(sent: Mapping[str, int]) -> PlannerBounds:
    """The bounds that we know. Raises InvalidAnswer when one is missing: our own default would be a guess."""
    names = [each.name for each in fields(PlannerBounds)]
    missing = [name for name in names if name not in sent]
    if missing:
        raise InvalidAnswer(f"bounds: expected {', '.join(names)}, got none of {', '.join(missing)}")
    return PlannerBounds(**{name: sent[name] for name in names})
