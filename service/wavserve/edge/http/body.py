"""Parses an HTTP body, JSON or multipart, into an `Observation`. Both formats give the same observation.

JSON is parsed strictly: an object with a repeated key is refused, because one of the two values would be lost. NaN is
parsed, so that a later check can refuse it and name its field.
"""

from __future__ import annotations

import base64
import binascii
import json
import reprlib
from collections import Counter
from typing import Any, TypeVar

from pydantic import ValidationError
from python_multipart.multipart import parse_options_header

from wavserve.core.errors import InvalidRequest, UnsupportedMedia
from wavserve.core.messages import EMPTY_IS_NONE, OPTIONAL_FIELDS, PLAIN_FIELDS, EncodedImage, Observation
from wavserve.edge.http.multipart import Part, parse_parts
from wavserve.edge.http.schemas import Body, ImageBody, ImageFields, PlanBody, PlanFields

Model = TypeVar("Model", bound=Body)

REQUEST_PART = "request"
_JSON = "application/json"
_MULTIPART = "multipart/form-data"
_IMAGE_TYPES = {"image/jpeg": "jpeg", "image/png": "png", "application/octet-stream": None}
_MAX_SHOWN_CHARS = 80
_MAX_KEYS = 64  # more than any object of the contract has; limits the work of validation


def parse_plan(content_type: str, body: bytes) -> Observation:
    """Parses a plan request. Raises UnsupportedMedia for another content type, InvalidRequest for a malformed body."""
    media_type, options = parse_options_header(content_type)
    if media_type == _JSON.encode():
        plan = parse_json(PlanBody, body, "body")
        return _observation(plan, tuple(_image_from_json(image) for image in plan.images))
    if media_type == _MULTIPART.encode():
        boundary = options.get(b"boundary")
        if not boundary:
            raise InvalidRequest("content-type", "a boundary parameter", repr(content_type[:_MAX_SHOWN_CHARS]))
        return _from_parts(parse_parts(body, boundary))
    actual = repr(content_type[:_MAX_SHOWN_CHARS]) if content_type else "none"
    raise UnsupportedMedia("content-type", f"{_JSON} or {_MULTIPART}", actual)


def parse_json(model: type[Model], body: bytes, field: str) -> Model:
    """Parses a JSON text as `model`. `field` names the whole text. Raises InvalidRequest for the first wrong field."""
    try:
        tree = json.loads(body.decode(), object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(field, "JSON in UTF-8", f"{len(body)} bytes that do not parse: {error}") from None
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise invalid_request_from(error.errors(include_url=False)[0], field) from None


def invalid_request_from(problem: Any, field: str) -> InvalidRequest:
    """A pydantic error as InvalidRequest. `field` names the whole input, for an error that belongs to no part of it."""
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in problem["loc"]).lstrip(".")
    match problem["type"]:
        case "missing":
            return InvalidRequest(path, "a value", "nothing")
        case "model_type":
            return InvalidRequest(path or field, "an object", _shown(problem["input"]))
        case "tuple_type":
            return InvalidRequest(path, "a valid list", _shown(problem["input"]))
        case "too_long":
            most, count = problem["ctx"]["max_length"], len(problem["input"])
            return InvalidRequest(path, f"at most {most} items", f"{count} items")
        case "extra_forbidden":
            return InvalidRequest(path, "only fields of the contract, see /docs", "an unknown field")
        case _:
            expected = problem["msg"].removeprefix("Input should be ")
            return InvalidRequest(path or field, expected, _shown(problem["input"]))


def _shown(value: object) -> str:
    """A value's repr, cut to _MAX_SHOWN_CHARS. The repr of a long value is never built."""
    text = repr(value[:_MAX_SHOWN_CHARS]) if isinstance(value, str) else reprlib.repr(value)
    return text[:_MAX_SHOWN_CHARS]


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    tree = dict(pairs)
    if len(tree) != len(pairs):
        ((repeated, count),) = Counter(name for name, _ in pairs).most_common(1)
        raise InvalidRequest(repeated[:_MAX_SHOWN_CHARS], "each key once in an object", f"{count} times")
    if len(tree) > _MAX_KEYS:
        raise InvalidRequest("body", f"at most {_MAX_KEYS} keys in an object", f"{len(tree)} keys")
    return tree


def _observation(plan: PlanFields, images: tuple[EncodedImage, ...]) -> Observation:
    header: dict[str, Any] = {name: getattr(plan, name) for name in (*PLAIN_FIELDS, *OPTIONAL_FIELDS)}
    header |= {name: getattr(plan, name) or None for name in EMPTY_IS_NONE}
    return Observation(images=images, state=tuple(plan.state), options=plan.planner, **header)


def _image_from_json(image: ImageBody) -> EncodedImage:
    try:
        data = base64.b64decode(image.data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest(
            f"images.{image.camera}.data", "base64", f"{len(image.data)} characters: {error}"
        ) from None
    return _encoded(image, image.encoding, data)


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
    plan = parse_json(PlanFields, bytes(requests[0].data), REQUEST_PART)
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
    return _encoded(facts or ImageFields(camera=part.name), encoding, bytes(part.data))
