"""The parts that several protobuf messages share: options, images, and parsing that refuses unknown fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from wavserve.core.errors import InvalidRequest, UnsupportedMedia, shown
from wavserve.core.messages import ENCODINGS, EncodedImage
from wavserve.core.spec import PlannerConfig
from wavserve.pb import wavserve_pb2 as pb
from wavserve.wire.bounds import malformed

OPTION_NAMES = tuple(field.name for field in fields(PlannerConfig))
_MAX_UNKNOWN_SHOWN = 8
_EXPECTED = {
    FieldDescriptor.TYPE_STRING: "text that UTF-8 can encode",
    FieldDescriptor.TYPE_BYTES: "bytes",
    FieldDescriptor.TYPE_BOOL: "true or false",
    FieldDescriptor.TYPE_DOUBLE: "a number",
    FieldDescriptor.TYPE_UINT32: f"an integer from 0 to {2**32 - 1}",
    FieldDescriptor.TYPE_UINT64: f"an integer from 0 to {2**64 - 1}",
    FieldDescriptor.TYPE_INT64: f"an integer from {-(2**63)} to {2**63 - 1}",
}


def parse(message: Message, raw: bytes) -> None:
    """Parses bytes into the message. Raises InvalidRequest for bytes that do not parse and for unknown fields."""
    try:
        message.ParseFromString(raw)
    except DecodeError:
        raise malformed(raw, message.DESCRIPTOR.full_name) from None
    refuse_unknown("request", message)


def refuse_unknown(field: str, message: Message) -> None:
    """Raises InvalidRequest when the sender set an unknown field, because ignoring it would be a guess."""
    unknown = UnknownFieldSet(message)
    if len(unknown):
        shown = range(min(len(unknown), _MAX_UNKNOWN_SHOWN))
        numbers = ", ".join(str(unknown[index].field_number) for index in shown)
        raise InvalidRequest(field, f"fields of {message.DESCRIPTOR.full_name}", f"unknown field numbers {numbers}")


def options_from(message: pb.PlannerOptions) -> dict[str, object]:
    """The options that the sender set. For the others, the policy's defaults apply."""
    return {field.name: value for field, value in message.ListFields()}


def options(values: Mapping[str, object]) -> pb.PlannerOptions:
    """Planner options as protobuf. Raises InvalidRequest for a name or a type that the message does not have."""
    message = pb.PlannerOptions()
    for name, value in values.items():
        if name not in OPTION_NAMES:
            raise InvalidRequest(f"planner.{name}", f"one of {', '.join(OPTION_NAMES)}", "an unknown option")
        assign(message, name, value, f"planner.{name}")
    return message


def assign(message: Message, name: str, value: object, path: str) -> None:
    """Sets a field that is no message and no list. Raises InvalidRequest naming `path`, with the field's range."""
    try:
        setattr(message, name, value)
    except (TypeError, ValueError, UnicodeError):
        kind = message.DESCRIPTOR.fields_by_name[name].type
        raise InvalidRequest(path, _EXPECTED[kind], shown(value)) from None


def image(encoded: EncodedImage) -> pb.Image:
    """An image as protobuf. Raises UnsupportedMedia or InvalidRequest for values outside the contract."""
    if encoded.encoding not in ENCODINGS:
        field = f"images.{encoded.camera}.encoding"
        raise UnsupportedMedia(field, f"one of {', '.join(ENCODINGS)}", encoded.encoding)
    message = pb.Image(encoding=encoded.encoding.upper())
    for each in fields(encoded):
        if each.name != "encoding":
            assign(message, each.name, getattr(encoded, each.name), f"images.{encoded.camera}.{each.name}")
    return message


def image_from(message: pb.Image) -> EncodedImage:
    """An image from protobuf. An unknown encoding becomes a text with its number, which the edge then refuses."""
    is_known = message.encoding in pb.Image.Encoding.values()
    return EncodedImage(
        camera=message.camera,
        encoding=pb.Image.Encoding.Name(message.encoding).lower() if is_known else f"encoding {message.encoding}",
        data=message.data,
        height=message.height,
        width=message.width,
        channels=message.channels,
        captured_mono_ns=message.captured_mono_ns,
    )
