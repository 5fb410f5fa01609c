"""Texts that terminals and logs can show. A control character in a text would move the cursor or begin a line.

Knows nothing of logs, requests or errors.
"""

from __future__ import annotations


def printable(text: str) -> str:
    """The text with every character escaped that does not print: controls, line ends, lone surrogates, directions."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
