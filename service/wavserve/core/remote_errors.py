"""Typed errors as text and back, for a wire that carries a message and nothing else (Triton's).

Written by the host of a model, read by the backend in front of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from wavserve.core.errors import InvalidRequest, WavserveError

_MARK = "wavserve-fault:"


def encode(error: WavserveError) -> str:
    """One line that `decode` finds again, whatever stands around it."""
    facts = {"error": type(error).__name__, "message": error.message}
    if isinstance(error, InvalidRequest):
        facts |= {"field": error.field, "expected": error.expected, "actual": error.actual}
    return _MARK + json.dumps(facts)


def decode(text: str) -> WavserveError | None:
    """The error that was encoded somewhere in `text`; None when there is none."""
    _, mark, rest = text.partition(_MARK)
    if not mark:
        return None
    try:
        facts, _ = json.JSONDecoder().raw_decode(rest)
        kind = {cls.__name__: cls for cls in _family(WavserveError)}.get(facts["error"], WavserveError)
        if issubclass(kind, InvalidRequest):
            return kind(facts["field"], facts["expected"], facts["actual"])
        return kind(facts["message"])
    except (ValueError, KeyError, TypeError):
        return None


def _family(cls: type[WavserveError]) -> Iterator[type[WavserveError]]:
    yield cls
    for child in cls.__subclasses__():
        yield from _family(child)
