"""Words for people. Knows nothing of what they are about."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """`1 chunk`, `2 chunks`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
