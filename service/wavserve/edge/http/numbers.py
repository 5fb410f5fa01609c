"""64-bit integers in JSON. Many JSON libraries read numbers as float64, which rounds integers above 2^53 - 1.

A larger integer is therefore a decimal text, in requests and in answers. A text may have a smaller one too.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from wavserve.core.messages import MAX_INT64, MAX_JSON_INTEGER

_DECIMAL = re.compile(r"0|-?[1-9][0-9]{0,19}")


def _decimal_pattern(most: int) -> str:
    """A regular expression for the decimal texts of 0 to `most`, without leading zeros."""
    digits = str(most)
    shorter = rf"[1-9][0-9]{{0,{len(digits) - 2}}}"
    below = (
        f"{digits[:at]}[{1 if at == 0 else 0}-{int(digit) - 1}][0-9]{{{len(digits) - at - 1}}}"
        for at, digit in enumerate(digits)
        if int(digit) > (at == 0)
    )
    return f"^(?:0|{shorter}|{'|'.join(below)}|{digits})$"


def _schema(most: int, most_in_text: int = MAX_INT64) -> dict[str, Any]:
    text = {"type": "string", "pattern": _decimal_pattern(most_in_text)}
    return {"anyOf": [{"type": "integer", "minimum": 0, "maximum": most}, text]}


def _from_text(value: object) -> object:
    if isinstance(value, str) and _DECIMAL.fullmatch(value):
        return int(value)
    return value


def _exact(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > MAX_JSON_INTEGER:
        expected = f"a decimal text for an integer above {MAX_JSON_INTEGER}, which JSON libraries round"
        raise PydanticCustomError("rounded", "Input should be {expected}", {"expected": expected})
    return _from_text(value)


Int64 = Annotated[int, BeforeValidator(_exact), WithJsonSchema(_schema(MAX_JSON_INTEGER))]
"""An integer that decides about a plan. A number that a library of the sender may have rounded is refused."""

Answered = Annotated[int | str, WithJsonSchema(_schema(MAX_JSON_INTEGER, 2 * MAX_INT64))]
"""An integer of an answer. `valid_until_step` may exceed the largest control step of a request."""

Nanoseconds = Annotated[int, BeforeValidator(_from_text), WithJsonSchema(_schema(MAX_INT64))]
"""A time. A number of any size is accepted: a clock passes 2^53 ns after 104 days, and rounding does no harm."""
