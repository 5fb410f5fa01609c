"""The server's messages of the control stream and of Watch, to protobuf and back.

A server of another version may send more than this one knows: unknown fields and messages are ignored, and what cannot
be read is InvalidAnswer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from wavserve.core.control import (
    DropReason,
    GoAway,
    ObservationDropped,
    Pong,
    ResetAck,
    RobotStatus,
    ServerMessage,
    StreamError,
    Welcome,
)
from wavserve.core.errors import InvalidAnswer
from wavserve.core.messages import ActionChunk
from wavserve.pb import wavserve_pb2 as pb
from wavserve.wire import MAX_TEXT_BYTES, answers, bounds, parts
from wavserve.wire.control import report_from, report_message

_WELCOME_FIELDS = tuple(each.name for each in fields(Welcome) if each.name != "policy")
_STATUS_MESSAGES = ("last_chunk", "last_report")
_STATUS_FIELDS = tuple(each.name for each in fields(RobotStatus) if each.name not in _STATUS_MESSAGES)


def server_message(message: ServerMessage) -> pb.ServerMessage:
    """A server's message as protobuf."""
    part: dict[str, Any]
    match message:
        case ActionChunk():
            part = {"chunk": answers.action_chunk(message)}
        case Welcome():
            policy = answers.policy_message(message.policy)
            part = {"welcome": pb.Welcome(policy=policy, **_values(message, _WELCOME_FIELDS))}
        case ObservationDropped():
            part = {"dropped": _dropped(message)}
        case StreamError():
            part = {"error": pb.Error(**_values(message))}
        case Pong():
            part = {"pong": pb.Pong(**_values(message))}
        case ResetAck():
            part = {"reset_ack": pb.ResetAck(**_values(message))}
        case GoAway():
            part = {"go_away": pb.GoAway(**_values(message))}
    return pb.ServerMessage(**part)


def server_message_from(message: pb.ServerMessage) -> ServerMessage | None:
    """A server's message from protobuf; None for a kind that this version does not know. Raises InvalidAnswer."""
    kind = message.WhichOneof("message")
    return None if kind is None else _READERS[kind](getattr(message, kind))


def watch_interval_s(raw: bytes) -> float:
    """The seconds between two updates that a WatchRequest asks for; 0: not stated. Raises InvalidRequest, TooLarge."""
    bounds.check_outline(len(raw), MAX_TEXT_BYTES)
    message = pb.WatchRequest()
    parts.parse(message, raw)
    return message.interval_s


def watch_update(robots: list[RobotStatus]) -> pb.WatchUpdate:
    """What Watch tells of all robots, as protobuf."""
    return pb.WatchUpdate(robots=[_status(robot) for robot in robots])


def watch_update_from(message: pb.WatchUpdate) -> list[RobotStatus]:
    """What Watch told. Raises InvalidAnswer."""
    return [_status_from(each) for each in message.robots]


def _values(message: object, names: tuple[str, ...] | None = None) -> dict[str, Any]:
    names = names or tuple(each.name for each in fields(message))  # type: ignore[arg-type]  # one of our dataclasses
    return {name: getattr(message, name) for name in names}


def _dropped(dropped: ObservationDropped) -> pb.ObservationDropped:
    reason = pb.ObservationDropped.Reason.Value(dropped.reason.value.upper())
    return pb.ObservationDropped(**{**_values(dropped), "reason": reason})


def _dropped_from(message: pb.ObservationDropped) -> ObservationDropped:
    reasons = {pb.ObservationDropped.Reason.Value(each.value.upper()): each for each in DropReason}
    if message.reason not in reasons:
        known = ", ".join(each.value for each in DropReason)
        raise InvalidAnswer(f"dropped.reason: expected one of {known}, got number {message.reason}")
    return ObservationDropped(
        message.sequence, reasons[message.reason], message.by_sequence, message.epoch, message.retry_after_ms
    )


def _welcome_from(message: pb.Welcome) -> Welcome:
    return Welcome(policy=answers.policy_from(message.policy), **_values_of(message, _WELCOME_FIELDS))


def _error_from(message: pb.Error) -> StreamError:
    names = tuple(each.name for each in fields(StreamError))
    values = _values_of(message, names)
    sequence = message.sequence if message.HasField("sequence") else None
    return StreamError(**{**values, "sequence": sequence, "facts": dict(message.facts)})


_READERS: Mapping[str, Callable[[Any], ServerMessage]] = {
    "welcome": _welcome_from,
    "chunk": answers.chunk_from,
    "dropped": _dropped_from,
    "error": _error_from,
    "pong": lambda message: Pong(**_values_of(message, ("id", "client_mono_ns", "server_recv_ns", "server_send_ns"))),
    "reset_ack": lambda message: ResetAck(**_values_of(message, ("id", "epoch", "next_sequence"))),
    "go_away": lambda message: GoAway(**_values_of(message, ("reconnect_within_ms", "reason"))),
}


def _values_of(message: Any, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(message, name) for name in names}


def _status(robot: RobotStatus) -> pb.RobotStatus:
    message = pb.RobotStatus(**_values(robot, _STATUS_FIELDS))
    if robot.last_chunk is not None:
        message.last_chunk.CopyFrom(answers.action_chunk(robot.last_chunk))
    if robot.last_report is not None:
        message.last_report.CopyFrom(report_message(robot.last_report))
    return message


def _status_from(message: pb.RobotStatus) -> RobotStatus:
    return RobotStatus(
        **_values_of(message, _STATUS_FIELDS),
        last_chunk=answers.chunk_from(message.last_chunk) if message.HasField("last_chunk") else None,
        last_report=report_from(message.last_report) if message.HasField("last_report") else None,
    )
