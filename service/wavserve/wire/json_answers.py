"""Answers of the HTTP edge, from JSON. The fields have the contract's names, so they are read as protobuf is.

JSON differs in matrices (nested lists), in the names of enums (lower case) and in numbers that are missing (null).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import Message

from wavserve.core.errors import InvalidAnswer, shown
from wavserve.core.messages import ActionChunk, PolicyInfo
from wavserve.pb import wavserve_pb2 as pb
from wavserve.wire import answers

Read = TypeVar("Read", bound=Message)


def chunk_from_json(content: object) -> ActionChunk:
    """A chunk. Raises InvalidAnswer."""
    return answers.chunk_from(_message(pb.ActionChunk(), content))


def policy_from_json(content: object) -> PolicyInfo:
    """A policy's facts. Raises InvalidAnswer."""
    return answers.policy_from(_message(pb.PolicyInfo(), content))


def _message(message: Read, content: object) -> Read:
    """Fields of a newer contract are ignored."""
    descriptor = cast(Descriptor, message.DESCRIPTOR)
    if not isinstance(content, dict):
        raise InvalidAnswer(f"answer: expected a {descriptor.full_name}, got {shown(content)}")
    try:
        return ParseDict(_object(descriptor, content), message, ignore_unknown_fields=True)
    except (ParseError, TypeError, ValueError, RecursionError) as error:
        raise InvalidAnswer(f"answer: expected a {descriptor.full_name}, got {shown(str(error))}") from None


def _object(descriptor: Descriptor, content: object) -> Any:
    """The JSON object as protobuf's JSON has it."""
    if not isinstance(content, dict) or descriptor.GetOptions().map_entry:
        return content
    known = descriptor.fields_by_name
    return {name: _value(known[name], value) for name, value in content.items() if name in known}


def _value(field: FieldDescriptor, value: Any) -> Any:
    if isinstance(value, list):
        return [_value(field, "NaN" if each is None else each) for each in _flat(value)]
    if field.enum_type is not None and isinstance(value, str):
        return value.upper()
    return value if field.message_type is None else _object(field.message_type, value)


def _flat(values: list[Any]) -> Iterator[Any]:
    """The rows of a matrix one after another."""
    for value in values:
        if isinstance(value, list):
            yield from _flat(value)
        else:
            yield value
