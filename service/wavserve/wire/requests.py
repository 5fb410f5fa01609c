"""Requests from protobuf (for the gRPC edge) and to protobuf (for the robot client)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from wavserve.core.errors import InvalidRequest, shown
from wavserve.core.messages import EMPTY_IS_NONE, OPTIONAL_FIELDS, PLAIN_FIELDS, EncodedImage, Observation
from wavserve.pb import wavserve_pb2 as pb
from wavserve.wire import MAX_STATE_NUMBERS, MAX_TEXT_BYTES, bounds, parts, rtc


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
        rtc=rtc.rtc_from(message.rtc) if message.HasField("rtc") else None,
        **header,
    )


def parse_reset_request(raw: bytes) -> tuple[str, bool]:
    """The session in a ResetRequest, and whether it ends. Raises InvalidRequest and TooLarge."""
    bounds.check_outline(len(raw), MAX_TEXT_BYTES)
    message = pb.ResetRequest()
    parts.parse(message, raw)
    return message.session_id, message.end


def parse_get_policy_request(raw: bytes) -> str | None:
    """The policy in a GetPolicyRequest; None means the served policy. Raises InvalidRequest and TooLarge."""
    bounds.check_outline(len(raw), MAX_TEXT_BYTES)
    message = pb.GetPolicyRequest()
    parts.parse(message, raw)
    return message.policy or None


def plan_request(observation: Observation) -> pb.PlanRequest:
    """An observation as protobuf. Raises InvalidRequest or UnsupportedMedia for values outside the contract."""
    message = pb.PlanRequest(images=_images(observation.images))
    _extend(message.state, "state", observation.state)
    if observation.options:
        message.planner.CopyFrom(parts.options(observation.options))
    if observation.rtc is not None:
        message.rtc.CopyFrom(rtc.rtc_message(observation.rtc))
    for name in (*PLAIN_FIELDS, *EMPTY_IS_NONE, *OPTIONAL_FIELDS):
        value = getattr(observation, name)
        if value is not None or name in PLAIN_FIELDS:
            parts.assign(message, name, value)
    return message


def _images(images: Iterable[EncodedImage]) -> list[pb.Image]:
    converted = []
    for index, image in enumerate(_items("images", images)):
        if not isinstance(image, EncodedImage):
            raise InvalidRequest(f"images[{index}]", "an EncodedImage", shown(image))
        converted.append(parts.image(image))
    return converted


def _extend(numbers: Any, field: str, values: Iterable[float]) -> None:
    """Appends the values one by one, so that a refusal names the first that is no number."""
    for index, value in enumerate(_items(field, values)):
        try:
            if isinstance(value, str | bytes | bool):
                raise TypeError
            numbers.append(value)
        except (TypeError, ValueError, OverflowError):
            raise InvalidRequest(f"{field}[{index}]", "a number", shown(value)) from None


def _items(field: str, values: Iterable[Any]) -> Iterator[Any]:
    try:
        return iter(values)
    except TypeError:
        raise InvalidRequest(field, "a list", shown(values)) from None
