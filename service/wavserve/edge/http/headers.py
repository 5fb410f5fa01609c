"""Headers of a request and of its parts: a value with parameters, and what may be stated about the bytes that follow.

A header that changes the meaning of bytes, and that this service does not honour, is refused. Knows no routes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.datastructures import Headers

from wavserve.core.errors import InvalidRequest, UnsupportedMedia, shown

_PARAMETER = re.compile(r';[ \t]*([^\s=;"]+)[ \t]*=[ \t]*("(?:[^"\\]|\\.)*"|[^\s;"]*)[ \t]*')
_QUOTED_PAIR = re.compile(r'\\(["\\])')
_UTF_8 = ("utf-8", "utf8", "us-ascii")
_AS_IT_IS = {"content-encoding": ("identity",), "content-transfer-encoding": ("binary", "8bit", "7bit")}
_CONTENT_TYPE, _CONTENT_RANGE = "content-type", "content-range"


@dataclass(frozen=True, slots=True)
class HeaderValue:
    """`value` and the names of `parameters` are in lower case."""

    value: str
    parameters: Mapping[str, str]


def parse_value(field: str, text: str) -> HeaderValue:
    """A header's value and its parameters. Raises InvalidRequest naming `field`."""
    value, semicolon, _ = text.partition(";")
    at, parameters = len(value), dict[str, str]()
    while semicolon and text[at:].strip(" \t;"):
        found = _PARAMETER.match(text, at)
        if found is None:
            raise InvalidRequest(field, "parameters of the form name=value", shown(text))
        name, quoted = found[1].lower(), found[2]
        if name in parameters:
            raise InvalidRequest(field, f"the parameter {shown(name)} once", "twice")
        parameters[name] = _QUOTED_PAIR.sub(r"\1", quoted[1:-1]) if quoted.startswith('"') else quoted
        at = found.end()
    return HeaderValue(value.strip(" \t").lower(), parameters)


def media_type(field: str, text: str) -> HeaderValue:
    """A content type. Raises UnsupportedMedia for another character set than UTF-8, because texts are read in UTF-8."""
    found = parse_value(field, text)
    charset = found.parameters.get("charset", "utf-8")
    if charset.lower() not in _UTF_8:
        raise UnsupportedMedia(field, "charset utf-8", shown(charset))
    return found


def check_bytes(prefix: str, headers: Mapping[str, str]) -> None:
    """Raises UnsupportedMedia when a header says that the bytes are encoded, or are a range of a longer body.

    `prefix`: what the error puts before the header's name.
    """
    for name, honoured in _AS_IT_IS.items():
        if name in headers and headers[name].strip().lower() not in honoured:
            raise UnsupportedMedia(f"{prefix}{name}", " or ".join(honoured), shown(headers[name]))
    if _CONTENT_RANGE in headers:
        raise UnsupportedMedia(f"{prefix}{_CONTENT_RANGE}", "a whole body", shown(headers[_CONTENT_RANGE]))


def request_media_type(headers: Headers) -> HeaderValue:
    """The type of a request's body. Raises InvalidRequest for a repeated header, UnsupportedMedia as above."""
    for name in (_CONTENT_TYPE, *_AS_IT_IS):
        if len(headers.getlist(name)) > 1:
            raise InvalidRequest(name, "one such header", len(headers.getlist(name)))
    check_bytes("", headers)
    return media_type(_CONTENT_TYPE, headers.get(_CONTENT_TYPE, ""))
