"""Requests from protobuf (for the gRPC edge) and to protobuf (for the robot client)."""

from __future__ import annotations

from typing import Any

from wavserve.core.errors import InvalidRequest, shown
from wavserve.core.messages import EMPTY_IS_NONE, OPTIONAL_FIELDS, PLAIN_FIELDS, Observation
from wavserve.pb import wavserve_pb2 as pb
from wavserve.wire import MAX_MILLISECONDS, MAX_STATE_NUMBERS, MAX_TEXT_BYTES, bounds, parts


def parse_plan_request(raw: bytes) -> Observation:
    """The observation in a PlanRequest. Raises InvalidRequest for bytes that do not parse and for unknown fields.

    Raises TooLarge for a request in which more than the images' data is long.
    """
    bounds.check_plan_request(raw)
    message = pb.PlanRequest()
    parts.parse(message, raw)
    if len(message.state) > MAX_STATE_NUMBERS:
        raise InvalidRequest("state", f"at most {MAX_STATE_NUMBERS} numbers", f"{len(message.state)} numbers")
    parts.refuse_unknown("planner", message.planner)
    for image in message.images:
        parts.refuse_unknown(f"images.{image.camera}", image)
    header: dict[str, Any] = {
        **{name: getattr(message, name) for name in PLAIN_FIELDS},
        **{name: getattr(message, name) or None for name in EMPTY_IS_NONE},
        **{name: getattr(message, name) if message.HasField(name) else None for name in OPTIONAL_FIELDS},
    }
    return Observation(
        images=tuple(parts.image_from(image) for image in message.images),
        state=tuple(message.state),
        options=parts.options_from(message.planner),
        **header,
    )


def parse_reset_request(raw: bytes) -> str:
    """The session in a ResetRequest. Raises InvalidRequest and TooLarge."""
    bounds.check_outline(len(raw), MAX_TEXT_BYTES)
    message = pb.ResetRequest()
    parts.parse(message, raw)
    return message.session_id


def parse_get_policy_request(raw: bytes) -> str | None:
    """The policy in a GetPolicyRequest; None means the served policy. Raises InvalidRequest and TooLarge."""
    bounds.check_outline(len(raw), MAX_TEXT_BYTES)
    message = pb.GetPolicyRequest()
    parts.parse(message, raw)
    return message.policy or None


def plan_request(observation: Observation) -> pb.PlanRequest:
    """An observation as protobuf. Raises InvalidRequest or UnsupportedMedia for values outside the contract."""
    images = [parts.image(image) for image in observation.images]
    planner = parts.options(observation.options) if observation.options else None
    deadline_ms = observation.deadline_ms
    if isinstance(deadline_ms, int) and not 0 <= deadline_ms <= MAX_MILLISECONDS:  # the server decides about 0
        raise InvalidRequest("deadline_ms", f"1 to {MAX_MILLISECONDS}", deadline_ms)
    message = pb.PlanRequest(images=images, planner=planner)
    for name in (*PLAIN_FIELDS, *OPTIONAL_FIELDS, *EMPTY_IS_NONE):
        if (value := getattr(observation, name)) is not None:
            parts.assign(message, name, value, name)
    for index, number in enumerate(observation.state):
        try:
            message.state.append(number)
        except (TypeError, ValueError):
            raise InvalidRequest(f"state[{index}]", "a number", shown(number)) from None
    return message
