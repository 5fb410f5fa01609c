"""Splits a multipart/form-data body into its parts, in memory. The gate has already limited the body's size.

A part stays bytes, with or without a file name. Robots send raw pixels both ways, and decoding them as text would
damage the image.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError, MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from wavserve.core.errors import InvalidRequest
from wavserve.wire import MAX_IMAGES


@dataclass(slots=True)
class Part:
    """One part, filled by the parser. `content_type` is in lower case, without parameters; None when not given."""

    name: str = ""
    content_type: str | None = None
    data: bytearray = field(default_factory=bytearray)


def parse_parts(body: bytes, boundary: bytes) -> list[Part]:
    """The parts, in order. Raises InvalidRequest for a body that is malformed or ends early."""
    collector = _Collector()
    try:
        parser = MultipartParser(boundary, collector.callbacks())  # type: ignore[arg-type]  # a TypedDict of the same keys
    except FormParserError:
        expected = "a boundary of at most 70 characters (RFC 2046)"
        raise InvalidRequest("content-type", expected, f"{len(boundary)} characters") from None
    try:
        parser.write(body)
        parser.finalize()
    except MultipartParseError as error:
        raise InvalidRequest("body", "multipart/form-data", str(error)) from None
    if not collector.ended:
        raise InvalidRequest("body", "multipart/form-data with a closing boundary", f"{len(body)} bytes without one")
    return collector.parts


class _Collector:
    """Builds the parts from the parser's callbacks."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.ended = False
        self._name = self._value = b""

    def callbacks(self) -> dict[str, object]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_part_data": self._data,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        if len(self.parts) > MAX_IMAGES:  # one part is the request
            raise InvalidRequest("body", f"at most {MAX_IMAGES + 1} parts", "more")
        self.parts.append(Part())

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        name, part = self._name.lower(), self.parts[-1]
        value, options = parse_options_header(self._value)
        if name == b"content-disposition":
            part.name = options.get(b"name", b"").decode("utf-8", "replace")
        elif name == b"content-type":
            part.content_type = value.decode("latin-1").lower()
        self._name = self._value = b""

    def _data(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].data += memoryview(data)[start:end]

    def _end(self) -> None:
        self.ended = True
