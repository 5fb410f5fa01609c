"""Splits a multipart/form-data body into its parts, in memory. The gate has already limited the body's size.

A part stays bytes, with or without a file name. Robots send raw pixels both ways, and decoding them as text would
damage the image. The work on a body is a search for its few boundaries. Names no field of the contract.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from wavserve.core.errors import InvalidRequest, TooLarge, shown
from wavserve.edge.http.headers import check_bytes, media_type, parse_value
from wavserve.wire import MAX_IMAGES

_MAX_PARTS = MAX_IMAGES + 1  # one part is the request
_MAX_HEADER_BYTES = 4096
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
_DELIMITER_END = re.compile(rb"[ \t]*\r\n|--")
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\0]*)")


@dataclass(frozen=True, slots=True)
class Part:
    """One part. `content_type` is in lower case, without parameters; None when not given."""

    name: str
    content_type: str | None
    data: bytes


def parse_parts(body: bytes, boundary: str) -> list[Part]:
    """The parts, in order. Raises InvalidRequest for a body that is malformed or ends early.

    Raises UnsupportedMedia for a part whose headers say that its bytes are encoded.
    """
    if not _BOUNDARY.fullmatch(boundary):
        expected = "a boundary of 1 to 70 of the characters of RFC 2046"
        raise InvalidRequest("content-type", expected, f"{len(boundary)} characters")
    return [_part(body[start:end], number) for number, (start, end) in enumerate(_spans(body, boundary.encode()))]


def _spans(body: bytes, boundary: bytes) -> Iterator[tuple[int, int]]:
    """Where each part begins and ends, headers included."""
    delimiter = b"\r\n--" + boundary
    is_first = body.startswith(delimiter.lstrip())  # no line end comes before it
    at = -len(b"\r\n") if is_first else body.find(delimiter)
    if at == -1:
        raise InvalidRequest("body", f"multipart/form-data with the boundary {shown(boundary.decode())}", "none")
    at += len(delimiter)
    for _ in range(_MAX_PARTS + 1):
        line = _DELIMITER_END.match(body, at)
        if line is None:
            raise InvalidRequest("body", "a line end after each boundary", f"none at byte {at}")
        if line[0] == b"--":
            return
        end = body.find(delimiter, line.end() - len(b"\r\n"))  # a part may be empty
        if end == -1:
            raise InvalidRequest(
                "body", "multipart/form-data with a closing boundary", f"{len(body)} bytes without one"
            )
        yield line.end(), max(end, line.end())
        at = end + len(delimiter)
    raise InvalidRequest("body", f"at most {_MAX_PARTS} parts", "more")


def _part(part: bytes, number: int) -> Part:
    field = f"part[{number}]"
    end = part.find(b"\r\n\r\n", 0, _MAX_HEADER_BYTES)
    if end == -1:
        raise TooLarge(f"{field}.headers", f"at most {_MAX_HEADER_BYTES} bytes and a blank line", "none")
    headers, data = _headers(part[:end], field), part[end + len(b"\r\n\r\n") :]
    check_bytes(f"{field}.", headers)
    stated = headers.get("content-length", str(len(data)))
    if stated != str(len(data)):
        raise InvalidRequest(f"{field}.content-length", f"{len(data)}, the part's bytes", shown(stated))
    type_text = headers.get("content-type")
    content_type = None if type_text is None else media_type(f"{field}.content-type", type_text).value
    return Part(_name(headers, field), content_type, data)


def _headers(block: bytes, field: str) -> dict[str, str]:
    """The headers by their names in lower case. Raises InvalidRequest for a header that is malformed or comes twice."""
    try:
        lines = block.decode().split("\r\n")
    except UnicodeDecodeError:
        raise InvalidRequest(f"{field}.headers", "UTF-8", "other bytes") from None
    headers: dict[str, str] = {}
    for line in lines:
        found = _HEADER.fullmatch(line)
        if found is None:
            raise InvalidRequest(f"{field}.headers", "lines of the form name: value", shown(line))
        name = found[1].lower()
        if name in headers:
            raise InvalidRequest(f"{field}.headers", f"{shown(name)} once", "twice")
        headers[name] = found[2].rstrip(" \t")
    return headers


def _name(headers: dict[str, str], field: str) -> str:
    field += ".content-disposition"
    disposition = parse_value(field, headers.get("content-disposition", ""))
    for name in disposition.parameters:
        if name.partition("*")[0] == "name" and name != "name":
            raise InvalidRequest(field, "a name in UTF-8, without the encoding of RFC 5987", shown(name))
    if disposition.value != "form-data" or "name" not in disposition.parameters:
        raise InvalidRequest(field, "form-data with a name", shown(headers.get("content-disposition", "")))
    return disposition.parameters["name"]
