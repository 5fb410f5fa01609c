"""A client's messages of the control stream, from protobuf (for the gRPC edge) and to protobuf (for the robot client).

`control_answers` has the server's messages. The server's side is strict, because to ignore a field would be a guess.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from google.protobuf.message import Message

from wavserve.core.control import (
    Bye,
    ClientMessage,
    ControlObservation,
    ExecutionReport,
    Hello,
    HoldReason,
    Ping,
    ResetStream,
)
from wavserve.core.errors import InvalidRequest, shown
from wavserve.core.messages import Vector
from wavserve.core.spec import CameraSpec
from wavserve.pb import wavserve_pb2 as pb
from wavserve.wire import MAX_IMAGES, MAX_STATE_NUMBERS, bounds, parts, requests, rtc

MAX_FAULTS = 16
"""The most faults in a report. A longer list is refused."""

_HELLO_TEXTS = ("client_name", "client_version", "robot_id", "embodiment", "policy", "policy_digest", "instruction")
_HELLO_FIELDS = ("protocol_version", *_HELLO_TEXTS, "control_hz", "want_iterations")
_OBSERVATION_FIELDS = (
    *("sequence", "epoch", "control_step", "executed_steps", "sent_mono_ns", "instruction"),
    *("prev_chunk_id", "prev_chunk_next_index", "imagine_chunks", "traceparent"),
)
_OPTIONAL = ("deadline_ms", "seed")
_REPORT_FIELDS = (
    *("chunk_id", "executed_from_step", "executed_to_step", "clamped_steps", "tracking_error"),
    *("chunk_age_ms", "seam_jump", "starved_steps"),
)
_CAMERA_FIELDS = ("name", "height", "width", "orientation")


def parse_client_message(raw: bytes) -> ClientMessage:
    """One message of a client. Raises InvalidRequest for bytes that do not parse, unknown fields and long lists.

    Raises TooLarge for a message in which more than the images' data is long.
    """
    bounds.check_client_message(raw)
    message = pb.ClientMessage()
    parts.parse(message, raw)
    kind = message.WhichOneof("message")
    if kind is None:  # protobuf skips a field of another wire type
        raise bounds.malformed(raw, message.DESCRIPTOR.full_name)
    part = getattr(message, kind)
    parts.refuse_unknown(kind, part)
    return _PARSERS[kind](part)


def client_message(message: ClientMessage) -> pb.ClientMessage:
    """A client's message as protobuf. Raises InvalidRequest or UnsupportedMedia for values outside the contract."""
    sent = pb.ClientMessage()
    match message:
        case Hello():
            sent.hello.CopyFrom(_hello(message))
        case ControlObservation():
            sent.observation.CopyFrom(_observation(message))
        case ExecutionReport():
            sent.execution_report.CopyFrom(report_message(message))
        case Ping():
            sent.ping.SetInParent()
            _fill(sent.ping, message, ("id", "client_mono_ns"))
        case ResetStream():
            sent.reset.SetInParent()
            _fill(sent.reset, message, ("id",))
        case Bye():
            sent.bye.SetInParent()
            _fill(sent.bye, message, ("reason",))
    return sent


def report_message(report: ExecutionReport) -> pb.ExecutionReport:
    """A report as protobuf."""
    reason = report.hold_reason
    message = pb.ExecutionReport(faults=report.faults, hold_reason=None if reason is None else reason.value.upper())
    _fill(message, report, _REPORT_FIELDS)
    return message


def report_from(message: pb.ExecutionReport) -> ExecutionReport:
    """A report from protobuf. A reason that this version does not know counts as none."""
    reasons = {pb.ExecutionReport.HoldReason.Value(each.value.upper()): each for each in HoldReason}
    return ExecutionReport(
        faults=tuple(message.faults), hold_reason=reasons.get(message.hold_reason), **_read(message, _REPORT_FIELDS)
    )


def _hello_from(message: pb.Hello) -> Hello:
    _check_list("cameras", message.cameras, MAX_IMAGES)
    for camera in message.cameras:
        parts.refuse_unknown("cameras", camera)
    return Hello(
        state=_vector_from("state", message.state),
        action=_vector_from("action", message.action),
        cameras=tuple(CameraSpec(**_read(each, _CAMERA_FIELDS)) for each in message.cameras),
        resume_session_id=message.resume_session_id or None,
        **_read(message, _HELLO_FIELDS),
    )


def _observation_from(message: pb.Observation) -> ControlObservation:
    _check_list("state", message.state, MAX_STATE_NUMBERS)
    parts.refuse_unknown("planner", message.planner)
    for image in message.images:
        parts.refuse_unknown(f"images.{image.camera}", image)
    optional: dict[str, Any] = {name: getattr(message, name) if message.HasField(name) else None for name in _OPTIONAL}
    return ControlObservation(
        images=tuple(parts.image_from(image) for image in message.images),
        state=tuple(message.state),
        options=parts.options_from(message.planner),
        rtc=rtc.rtc_from(message.rtc) if message.HasField("rtc") else None,
        **optional,
        **_read(message, _OBSERVATION_FIELDS),
    )


def _report_from(message: pb.ExecutionReport) -> ExecutionReport:
    """A report, strictly: what it counts must be known."""
    _check_list("faults", message.faults, MAX_FAULTS)
    known = pb.ExecutionReport.HoldReason.values()
    if message.hold_reason not in known:
        raise InvalidRequest("hold_reason", f"one of the numbers {known[0]} to {known[-1]}", message.hold_reason)
    return report_from(message)


def _vector_from(field: str, message: pb.Vector) -> Vector:
    """What a client assumes of a vector. Its limits do not count."""
    for name in ("names", "units"):
        _check_list(f"{field}.{name}", getattr(message, name), MAX_STATE_NUMBERS)
    parts.refuse_unknown(field, message)
    return Vector(tuple(message.names), tuple(message.units), message.statistics_digest)


_PARSERS: Mapping[str, Callable[[Any], ClientMessage]] = {
    "hello": _hello_from,
    "observation": _observation_from,
    "execution_report": _report_from,
    "ping": lambda message: Ping(message.id, message.client_mono_ns),
    "reset": lambda message: ResetStream(message.id),
    "bye": lambda message: Bye(message.reason),
}


def _hello(hello: Hello) -> pb.Hello:
    message = pb.Hello()
    _fill(message, hello, _HELLO_FIELDS)
    for name in ("state", "action"):
        getattr(message, name).CopyFrom(_vector(name, getattr(hello, name)))
    for camera in hello.cameras:
        _fill(message.cameras.add(), camera, _CAMERA_FIELDS, "cameras.")
    if hello.resume_session_id is not None:
        parts.assign(message, "resume_session_id", hello.resume_session_id)
    return message


def _vector(field: str, vector: Vector) -> pb.Vector:
    message = pb.Vector()
    parts.assign(message, "statistics_digest", vector.statistics_digest, f"{field}.statistics_digest")
    try:
        message.names.extend(vector.names)
        message.units.extend(vector.units)
    except (TypeError, ValueError):
        raise InvalidRequest(field, "names and units that are text", shown([vector.names, vector.units])) from None
    return message


def _observation(observation: ControlObservation) -> pb.Observation:
    plain = requests.plan_request(replace(observation, rtc=None, epoch=None))
    message = pb.Observation(images=plain.images, state=plain.state, planner=plain.planner)
    _fill(message, observation, _OBSERVATION_FIELDS)
    _fill(message, observation, [name for name in _OPTIONAL if getattr(observation, name) is not None])
    if observation.rtc is not None:
        message.rtc.CopyFrom(rtc.rtc_message(observation.rtc))
    return message


def _fill(message: Message, values: object, names: Iterable[str], prefix: str = "") -> None:
    """Sets these fields of the message. Raises InvalidRequest for a value that a field cannot have."""
    for name in names:
        parts.assign(message, name, getattr(values, name), f"{prefix}{name}")


def _read(message: Message, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(message, name) for name in names}


def _check_list(field: str, items: Any, most: int) -> None:
    if len(items) > most:
        raise InvalidRequest(field, f"at most {most} items", f"{len(items)} items")
