"""Parses an HTTP body, JSON or multipart, into an `Observation`. Both formats give the same observation.

`bounded_json` and `multipart` take the bytes apart. This module gives the result the types of the contract.
"""

from __future__ import annotations

import binascii
from typing import Any, TypeVar

import numpy as np
from pydantic import ValidationError

from wavserve.core.errors import InvalidRequest, UnsupportedMedia, shown
from wavserve.core.messages import EMPTY_IS_NONE, OPTIONAL_FIELDS, PLAIN_FIELDS, EncodedImage, Observation
from wavserve.core.rtc import RtcRequest, no_actions
from wavserve.edge.http import bounded_json
from wavserve.edge.http.headers import HeaderValue
from wavserve.edge.http.multipart import Part, parse_parts
from wavserve.edge.http.schemas import Body, ImageBody, ImageFields, PlanBody, PlanFields, RtcFields

Model = TypeVar("Model", bound=Body)

REQUEST_PART = "request"
_JSON = "application/json"
_MULTIPART = "multipart/form-data"
_IMAGE_TYPES = {"image/jpeg": "jpeg", "image/png": "png", "application/octet-stream": None}
_EXPECTED = {"model_type": "an object", "bytes_type": "a text in base64", "tuple_type": "a valid list"}
"""Where pydantic names a type of Python."""
_BASE64_STEP = 1024 * 1024
"""Characters decoded at once, a multiple of four. Other threads can run in between."""


def parse_plan(media: HeaderValue, body: bytes) -> Observation:
    """Parses a plan request. Raises UnsupportedMedia for another content type, InvalidRequest for a malformed body."""
    if media.value == _JSON:
        plan = parse_json(PlanBody, body, "body")
        return _observation(plan, tuple(_image_from_json(image) for image in plan.images))
    if media.value == _MULTIPART:
        if "boundary" not in media.parameters:
            raise InvalidRequest("content-type", "a boundary parameter", "none")
        return _from_parts(parse_parts(body, media.parameters["boundary"]))
    raise UnsupportedMedia("content-type", f"{_JSON} or {_MULTIPART}", shown(media.value) if media.value else "none")


def parse_json(model: type[Model], body: bytes, field: str) -> Model:
    """Parses a JSON text as `model`. `field` names the whole text. Raises InvalidRequest for the first wrong field."""
    tree = bounded_json.parse(body, field)
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise invalid_request_from(error.errors(include_url=False)[0], field) from None


def invalid_request_from(problem: Any, field: str) -> InvalidRequest:
    """A pydantic error as InvalidRequest. `field` names the whole input, for an error that belongs to no part of it."""
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in problem["loc"]).lstrip(".")
    actual = shown(problem["input"])
    match problem["type"]:
        case "missing":
            expected, actual = "a value", "nothing"
        case "extra_forbidden":
            expected, actual = "only fields of the contract, see /docs", "an unknown field"
        case "too_long":
            expected, actual = f"at most {problem['ctx']['max_length']} items", f"{len(problem['input'])} items"
        case kind:
            expected = _EXPECTED.get(kind, problem["msg"].removeprefix("Input should be "))
    return InvalidRequest(path or field, expected, actual)


def _observation(plan: PlanFields, images: tuple[EncodedImage, ...]) -> Observation:
    header: dict[str, Any] = {name: getattr(plan, name) for name in (*PLAIN_FIELDS, *OPTIONAL_FIELDS)}
    header |= {name: getattr(plan, name) or None for name in EMPTY_IS_NONE}
    rtc = None if plan.rtc is None else _rtc(plan.rtc)
    return Observation(images=images, state=tuple(plan.state), options=plan.planner, rtc=rtc, **header)


def _rtc(sent: RtcFields) -> RtcRequest:
    """What a request asks of real-time chunking, unchecked. Raises InvalidRequest for a left-over that is no matrix."""
    rows = sent.prev_chunk_left_over
    for step, row in enumerate(rows):
        if len(row) != len(rows[0]):
            field = f"rtc.prev_chunk_left_over[{step}]"
            raise InvalidRequest(field, f"{len(rows[0])} numbers, as in the first action", f"{len(row)} numbers")
    same = {name: getattr(sent, name) for name in RtcFields.model_fields if name != "prev_chunk_left_over"}
    with np.errstate(over="ignore"):  # a number too large for float32 becomes infinite, and the policy refuses it
        left_over = np.array(rows, np.float32) if rows else no_actions()
    return RtcRequest(**same, prev_chunk_left_over=left_over)


def _image_from_json(image: ImageBody) -> EncodedImage:
    try:
        data = _from_base64(image.data)
    except binascii.Error as error:
        raise InvalidRequest(
            f"images.{image.camera}.data", "base64", f"{len(image.data)} characters: {error}"
        ) from None
    return _encoded(image, image.encoding, data)


def _from_base64(text: bytes) -> bytes:
    """Raises binascii.Error for anything but the standard alphabet with its padding at the end."""
    if len(text) % 4 or text.endswith(b"==="):  # a2b_base64 accepts padding after a full group
        raise binascii.Error("Incorrect padding")
    starts = range(0, len(text), _BASE64_STEP)
    if text.find(b"=", 0, starts[-1] if starts else 0) != -1:
        raise binascii.Error("Excess data after padding")
    pieces = (memoryview(text)[start : start + _BASE64_STEP] for start in starts)
    return b"".join(binascii.a2b_base64(piece, strict_mode=True) for piece in pieces)


def _encoded(facts: ImageFields, encoding: str, data: bytes) -> EncodedImage:
    return EncodedImage(
        camera=facts.camera,
        encoding=encoding,
        data=data,
        height=facts.height,
        width=facts.width,
        channels=facts.channels,
        captured_mono_ns=facts.captured_mono_ns,
    )


def _from_parts(parts: list[Part]) -> Observation:
    requests = [part for part in parts if part.name == REQUEST_PART]
    if len(requests) != 1:
        raise InvalidRequest(REQUEST_PART, f"one part named {REQUEST_PART}", f"{len(requests)} such parts")
    if requests[0].content_type not in (None, _JSON, "text/plain"):
        raise UnsupportedMedia(REQUEST_PART, _JSON, requests[0].content_type)
    plan = parse_json(PlanFields, requests[0].data, REQUEST_PART)
    facts = {image.camera: image for image in plan.images}
    image_parts = [part for part in parts if part.name != REQUEST_PART]
    _check_facts(plan, facts, image_parts)
    return _observation(plan, tuple(_image_from_part(part, facts.get(part.name)) for part in image_parts))


def _check_facts(plan: PlanFields, facts: dict[str, ImageFields], image_parts: list[Part]) -> None:
    if len(facts) != len(plan.images):
        raise InvalidRequest("images", "each camera once", f"{len(plan.images)} entries for {len(facts)} cameras")
    for camera in facts.keys() - {part.name for part in image_parts}:
        raise InvalidRequest(f"images.{camera}", f"a part named {camera} with the image", "no such part")


def _image_from_part(part: Part, facts: ImageFields | None) -> EncodedImage:
    field = f"images.{part.name}"
    if part.content_type not in _IMAGE_TYPES:
        actual = part.content_type or "no content type"
        raise UnsupportedMedia(field, f"a part of type {', '.join(_IMAGE_TYPES)}", actual)
    typed, stated = _IMAGE_TYPES[part.content_type], facts.encoding if facts else None
    if typed and stated not in (None, typed):
        raise InvalidRequest(f"{field}.encoding", f"{typed}, as the part's content type says", stated)
    encoding = typed or stated
    if encoding is None:
        raise InvalidRequest(f"{field}.encoding", "an encoding, because the part is application/octet-stream", "none")
    return _encoded(facts or ImageFields(camera=part.name), encoding, part.data)
