"""Typed errors as facts, and back; and as text, for a wire whose errors carry only a message (Triton's).

The model's host encodes; the gateway's backend decodes. Facts of another version or of a broken sender never raise
another error. Knows the error tree only.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict

from wavserve.core.errors import (
    BrokenLimit,
    DeadlineExceeded,
    InvalidRequest,
    MissedDeadline,
    Overloaded,
    UnsafeChunk,
    WavserveError,
    error_kinds,
    error_name,
)

MAX_MESSAGE_BYTES = 1_000
MAX_FACT_BYTES = 300

_MARK = "wavserve-error:"
_COUNTS = ("iterations_done", "num_video_samples", "num_value_samples")


def encode(error: WavserveError) -> str:
    """One line that `decode` finds inside any other text. Long texts are cut: Triton sends the line in a header."""
    facts = facts_of(error)
    short = {name: cut(fact, MAX_FACT_BYTES) if isinstance(fact, str) else fact for name, fact in facts.items()}
    named = {"error": error_name(type(error)), "message": cut(error.message, MAX_MESSAGE_BYTES)}
    return _MARK + json.dumps(named | short)


def decode(text: str) -> WavserveError | None:
    """The error that is encoded anywhere in `text`; None when there is none."""
    _, mark, rest = text.partition(_MARK)
    if not mark:
        return None
    try:
        facts, _ = json.JSONDecoder().raw_decode(rest)
        return rebuild(facts["error"], facts["message"], facts)
    except (ValueError, KeyError, TypeError):
        return None


def facts_of(error: WavserveError) -> dict[str, str | float]:
    """What an error says besides its message, by the names of its attributes. Facts that do not apply are left out."""
    if isinstance(error, InvalidRequest):
        return {"field": error.field, "expected": error.expected, "actual": error.actual}
    if isinstance(error, Overloaded):
        predicted = {} if error.predicted_s is None else {"predicted_s": error.predicted_s}
        return {"retry_after_s": error.retry_after_s, **predicted}
    if isinstance(error, DeadlineExceeded) and error.missed is not None:
        return asdict(error.missed)
    if isinstance(error, UnsafeChunk) and error.broken is not None:
        return asdict(error.broken)
    return {}


def rebuild(name: str, message: str, facts: Mapping[str, object]) -> WavserveError:
    """The error of a public name. A WavserveError for an unknown name; facts that cannot be read are left out."""
    cls = error_kinds().get(name, WavserveError)
    if issubclass(cls, InvalidRequest):
        texts = (facts.get("field", "request"), facts.get("expected", "a valid request"), facts.get("actual", message))
        return cls(*(str(text) for text in texts))
    if issubclass(cls, Overloaded):
        retry_after = _number(facts, "retry_after_s")
        return cls(message, 1.0 if retry_after is None else max(retry_after, 0.0), _number(facts, "predicted_s"))
    if issubclass(cls, DeadlineExceeded):
        return cls(message, _missed(facts))
    if issubclass(cls, UnsafeChunk):
        return cls(message, _broken(facts))
    return cls(message)


def rebuild_served(
    name: str, message: str, facts: Mapping[str, object], error_id: str | None, retryable: bool
) -> WavserveError:
    """`rebuild` for a client, with the id under which the server logged the error.

    For an unknown name the text says the id, and the server's word on `retryable` counts.
    """
    error = rebuild(name, message, facts)
    if type(error) is WavserveError:
        error = WavserveError(f"{message} ({error_id or 'no id'})")
        error.retryable = retryable
    if error_id is not None:
        error.error_id = error_id
    return error


def cut(text: str, max_bytes: int) -> str:
    """The text within a number of bytes of UTF-8, cut between two characters. Lone surrogates are escaped."""
    raw = text[: max_bytes + 1].encode("utf-8", "backslashreplace")
    return raw.decode() if len(raw) <= max_bytes else raw[: max_bytes - 3].decode("utf-8", "ignore") + "..."


def _missed(facts: Mapping[str, object]) -> MissedDeadline | None:
    slack_ms, *counts = (_number(facts, name) for name in ("slack_ms", *_COUNTS))
    if slack_ms is None or None in counts:
        return None
    return MissedDeadline(slack_ms, *(int(count) for count in counts if count is not None))


def _broken(facts: Mapping[str, object]) -> BrokenLimit | None:
    step, dimension, bound, value = (_number(facts, name) for name in ("step", "dimension", "bound", "value"))
    if step is None or dimension is None or bound is None or value is None:
        return None
    return BrokenLimit(int(step), int(dimension), str(facts.get("name", "")), str(facts.get("limit", "")), bound, value)


def _number(facts: Mapping[str, object], name: str) -> float | None:
    """A finite number, or the text of one; otherwise None."""
    fact = facts.get(name)
    try:
        number = float(fact) if isinstance(fact, str | int | float) else math.nan
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
