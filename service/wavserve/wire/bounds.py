"""Limits of a serialized request. They are checked before protobuf builds anything from it.

Two bytes on the wire can become a whole `Image` message, so a small request could take much memory. The check walks
over the fields of the request and of its images, and reads only their lengths. Only an image's data may be long.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from itertools import islice

from wavserve.core.errors import InvalidRequest, TooLarge
from wavserve.pb import wavserve_pb2 as pb
from wavserve.wire import MAX_ELEMENTS, MAX_IMAGES, MAX_OUTLINE_BYTES, MAX_TEXT_BYTES

_FIXED_BYTES = {1: 8, 5: 4}
_MAX_VARINT_BYTES = 10
_MAX_UINT64 = 2**64 - 1
_DATA = pb.Image.DATA_FIELD_NUMBER
_PLAN_REQUEST = pb.PlanRequest.DESCRIPTOR.full_name
_OBSERVATION = pb.ClientMessage.OBSERVATION_FIELD_NUMBER
_SEQUENCE = pb.Observation.SEQUENCE_FIELD_NUMBER
_CLIENT_NAMES = {field.number: field.name for field in pb.ClientMessage.DESCRIPTOR.fields}
_IMAGE_NAMES = {field.number: field.name for field in pb.Image.DESCRIPTOR.fields}

Span = tuple[int, int, int]
"""A field's number, and where its value begins and ends."""


def check_plan_request(raw: bytes) -> None:
    """Raises TooLarge or InvalidRequest for a PlanRequest that is larger than any good one."""
    _check_request(raw, 0, len(raw), pb.PlanRequest)


def check_client_message(raw: bytes) -> None:
    """Raises TooLarge or InvalidRequest for a message of a control stream that is larger than any good one.

    It has exactly one field, because protobuf merges repeated ones: two observations would become one.
    """
    name = pb.ClientMessage.DESCRIPTOR.full_name
    fields = [*islice(_fields(raw, 0, len(raw), name), 2)]
    if len(fields) != 1:
        raise InvalidRequest("message", f"one of {', '.join(_CLIENT_NAMES.values())}", "several" if fields else "none")
    [(number, start, end)] = fields
    if number == _OBSERVATION:
        _check_request(raw, start, end, pb.Observation)
    else:
        _check_length(_CLIENT_NAMES, fields[0])


def sequence_of(raw: bytes) -> int | None:
    """The sequence of the observation in a client's message that was refused; None where it has none."""
    with contextlib.suppress(InvalidRequest):
        for number, start, end in _fields(raw, 0, len(raw)):
            if number == _OBSERVATION:
                of_sequence = (each for each in _fields(raw, start, end) if each[0] == _SEQUENCE)
                sequence = next((_varint(raw, at, stop)[0] for _, at, stop in of_sequence), 0)  # 0 is not sent
                return sequence & _MAX_UINT64  # a varint has up to 70 bits, and protobuf takes the lowest 64
    return None


def _check_request(raw: bytes, at: int, end: int, message: type[pb.PlanRequest | pb.Observation]) -> None:
    """Checks the message that lies between two positions."""
    names = {field.number: field.name for field in message.DESCRIPTOR.fields}
    num_images, num_fields, data_bytes, size = 0, 0, 0, end - at
    for number, start, stop in _fields(raw, at, end, message.DESCRIPTOR.full_name):
        num_fields += 1
        if number == message.IMAGES_FIELD_NUMBER:
            num_images += 1
            fields = list(_fields(raw, start, stop, message.DESCRIPTOR.full_name))
            num_fields += len(fields)
            data_bytes += sum(_check_length(_IMAGE_NAMES, field, _DATA) for field in fields)
        else:
            _check_length(names, (number, start, stop))
        if num_images > MAX_IMAGES:
            raise InvalidRequest("images", f"at most {MAX_IMAGES} images", "more")
        if num_fields > MAX_ELEMENTS:
            raise _too_many_fields()
    check_outline(size - data_bytes)


def check_outline(num_bytes: int, max_bytes: int = MAX_OUTLINE_BYTES) -> None:
    """Raises TooLarge for a request of too many bytes besides its images' data."""
    if num_bytes > max_bytes:
        raise TooLarge("request", f"at most {max_bytes} bytes besides the images' data", num_bytes)


def _check_length(names: Mapping[int, str], field: Span, long_field: int | None = None) -> int:
    """The bytes of the field numbered `long_field`, else 0. Raises TooLarge for any other field that is long."""
    number, start, end = field
    if number == long_field:
        return end - start
    if end - start > MAX_TEXT_BYTES:
        raise TooLarge(names.get(number, f"field {number}"), f"at most {MAX_TEXT_BYTES} bytes", f"{end - start} bytes")
    return 0


def _fields(raw: bytes, at: int, end: int, name: str = _PLAN_REQUEST) -> Iterator[Span]:
    """The fields of a serialized message. Raises InvalidRequest for what is no message `name`, groups included."""
    for _ in range(MAX_ELEMENTS):
        if at == end:
            return
        tag, at = _varint(raw, at, end, name)
        start = at
        match tag & 7:  # the wire type
            case 0:
                _, at = _varint(raw, at, end, name)
            case 2:
                length, start = _varint(raw, at, end, name)
                at = start + length
            case (1 | 5) as kind:
                at += _FIXED_BYTES[kind]
            case _:
                raise malformed(raw, name)
        if at > end:
            raise malformed(raw, name)
        yield tag >> 3, start, at
    raise _too_many_fields()


def _varint(raw: bytes, at: int, end: int, name: str = _PLAN_REQUEST) -> tuple[int, int]:
    """A variable-length integer at `at`, and the position after it."""
    value = 0
    for index in range(_MAX_VARINT_BYTES):
        if at + index >= end:
            break
        byte = raw[at + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, at + index + 1
    raise malformed(raw, name)


def malformed(raw: bytes, message: str = _PLAN_REQUEST) -> InvalidRequest:
    """The error of bytes that are no `message`."""
    expected = f"a {message} with text in UTF-8"
    return InvalidRequest("request", expected, f"{len(raw)} bytes that do not parse")


def _too_many_fields() -> InvalidRequest:
    return InvalidRequest("request", f"at most {MAX_ELEMENTS} fields", "more")
