"""Encodes typed errors as text and decodes them, for a wire whose errors carry only a message (Triton's).

The model's host encodes; the gateway's backend decodes. Knows the error tree only.
"""

from __future__ import annotations

import json

from wavserve.core.errors import InvalidRequest, WavserveError, error_kinds, error_name

_MARK = "wavserve-error:"


def encode(error: WavserveError) -> str:
    """One line that `decode` finds inside any other text."""
    facts = {"error": error_name(type(error)), "message": error.message}
    if isinstance(error, InvalidRequest):
        facts |= {"field": error.field, "expected": error.expected, "actual": error.actual}
    return _MARK + json.dumps(facts)


def decode(text: str) -> WavserveError | None:
    """The error that is encoded anywhere in `text`; None when there is none."""
    _, mark, rest = text.partition(_MARK)
    if not mark:
        return None
    try:
        facts, _ = json.JSONDecoder().raw_decode(rest)
        cls = error_kinds().get(facts["error"], WavserveError)
        if issubclass(cls, InvalidRequest):
            return cls(facts["field"], facts["expected"], facts["actual"])
        return cls(facts["message"])
    except (ValueError, KeyError, TypeError):
        return None
