"""Typed errors as text and back, for a wire that carries a message and nothing else (Triton's).

Written by the host of a model, read by the backend in front of it.
"""

from __future__ import annotations

import json

from wavserve.core.errors import InvalidRequest, WavserveError, error_kinds, error_name

_MARK = "wavserve-fault:"


def encode(error: WavserveError) -> str:
    """One line that `decode` finds again, whatever stands around it."""
    facts = {"error": error_name(type(error)), "message": error.message}
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
        kind = error_kinds().get(facts["error"], WavserveError)
        if issubclass(kind, InvalidRequest):
            return kind(facts["field"], facts["expected"], facts["actual"])
        return kind(facts["message"])
    except (ValueError, KeyError, TypeError):
        return None
