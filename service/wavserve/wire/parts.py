"""The parts that several protobuf messages share: options, images, and parsing, which refuses unknown fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.internal import api_implementation
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from wavserve.core.errors import InvalidRequest, SettingsError, UnsupportedMedia, shown
from wavserve.core.messages import ENCODINGS, EncodedImage
from wavserve.core.remote_errors import cut
from wavserve.core.spec import PlannerConfig
from wavserve.pb import wavserve_pb2 as pb
from wavserve.wire.bounds import malformed

OPTION_NAMES = tuple(field.name for field in fields(PlannerConfig))
_MAX_UNKNOWN_SHOWN = 8
_MAX_NAME_BYTES = 64
_EXPECTED = {
    FieldDescriptor.TYPE_STRING: "text that UTF-8 can encode",
    FieldDescriptor.TYPE_BYTES: "bytes",
    FieldDescriptor.TYPE_BOOL: "true or false",
    FieldDescriptor.TYPE_DOUBLE: "a number",
    FieldDescriptor.TYPE_UINT32: f"an integer from 0 to {2**32 - 1}",
    FieldDescriptor.TYPE_UINT64: f"an integer from 0 to {2**64 - 1}",
    FieldDescriptor.TYPE_INT64: f"an integer from {-(2**63)} to {2**63 - 1}",
}


def check_protobuf() -> None:
    """Raises SettingsError unless protobuf has its compiled implementation.

    The one in Python takes many times as long to parse a request, and every other robot waits meanwhile.
    """
    if (actual := api_implementation.Type()) != "upb":
        raise SettingsError(
            f"protobuf: expected its compiled implementation, upb, got {actual}; is "
            "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION set, or protobuf installed for another machine?"
        )


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
        first = range(min(len(unknown), _MAX_UNKNOWN_SHOWN))
        numbers = ", ".join(str(unknown[index].field_number) for index in first)
        raise InvalidRequest(field, f"fields of {message.DESCRIPTOR.full_name}", f"unknown field numbers {numbers}")


def assign(message: Message, name: str, value: object, field: str | None = None) -> None:
    """Sets one field of a message. Raises InvalidRequest, naming `field` or `name`, for a value that it cannot have."""
    of = message.DESCRIPTOR.fields_by_name[name].type
    try:
        if isinstance(value, bool) != (of == FieldDescriptor.TYPE_BOOL):  # protobuf takes True for 1
            raise TypeError
        setattr(message, name, value)
    except (TypeError, ValueError, OverflowError):
        raise InvalidRequest(field or name, _EXPECTED[of], shown(value)) from None


def octets(data: object, field: str) -> bytes:
    """The bytes of `bytes`, a `bytearray`, a `memoryview` or a uint8 array, row by row. Raises InvalidRequest."""
    if isinstance(data, bytes):
        return data
    try:
        view = memoryview(data)  # type: ignore[arg-type]  # a TypeError is what we want to know
    except (TypeError, ValueError):
        raise InvalidRequest(field, "bytes", shown(data)) from None
    if view.itemsize != 1:
        raise InvalidRequest(field, "bytes", f"items of {view.itemsize} bytes")
    return view.tobytes()


def options_from(message: pb.PlannerOptions) -> dict[str, object]:
    """The options that the sender set. For the others, the policy's defaults apply."""
    return {field.name: value for field, value in message.ListFields()}


def options(values: Mapping[str, object]) -> pb.PlannerOptions:
    """Planner options as protobuf. Raises InvalidRequest for a name or a type that the message does not have."""
    if not isinstance(values, Mapping):
        raise InvalidRequest("planner", "values by the options' names", shown(values))
    message = pb.PlannerOptions()
    for name, value in values.items():
        if name not in OPTION_NAMES:
            unknown = f"planner.{cut(str(name), _MAX_NAME_BYTES)}"
            raise InvalidRequest(unknown, f"one of {', '.join(OPTION_NAMES)}", "an unknown option")
        assign(message, name, value, f"planner.{name}")
    return message


def image(encoded: EncodedImage) -> pb.Image:
    """An image as protobuf. Raises UnsupportedMedia or InvalidRequest for values that the contract does not have."""
    path = f"images.{cut(encoded.camera, _MAX_NAME_BYTES) if isinstance(encoded.camera, str) else '?'}"
    if encoded.encoding not in ENCODINGS:
        raise UnsupportedMedia(
            f"{path}.encoding", f"one of {', '.join(ENCODINGS)}", cut(str(encoded.encoding), _MAX_NAME_BYTES)
        )
    message = pb.Image(encoding=encoded.encoding.upper(), data=octets(encoded.data, f"{path}.data"))
    for name in ("camera", "height", "width", "channels", "captured_mono_ns"):
        assign(message, name, getattr(encoded, name), f"{path}.{name}")
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
