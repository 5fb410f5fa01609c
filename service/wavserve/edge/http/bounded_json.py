"""Parses JSON within limits of depth, elements and text lengths, which are checked before anything is built.

Only an image's `data` may be long. It is cut out first and stays bytes; the small rest is parsed. The checks use
operations on whole bytes objects, so that a body of many megabytes costs milliseconds. An object with a repeated key is
refused, because one of the two values would be lost. NaN is parsed, so that a later check can refuse it and name its
field.
"""

from __future__ import annotations

import json
import re
import secrets
from collections import Counter
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from wavserve.core.errors import InvalidRequest, TooLarge, shown
from wavserve.wire import MAX_DEPTH, MAX_ELEMENTS, MAX_OUTLINE_BYTES, MAX_TEXT_BYTES

DATA = "data"
"""The key whose text may be long. Its value is bytes here: the text's own, with JSON's escapes undone."""
_MAX_KEY_BYTES = 64  # `data` with each letter escaped is shorter
_MAX_TEXTS = 1_000  # keys and values; the contract needs 400. Each costs a step of a loop
_MAX_KEYS = 64  # more than any object of the contract has; limits the work of validation
_TEXT = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_OPENING = b"[{"
# The escapes that JSON encoders use for characters of base64. Any other backslash stays, and is no base64.
_ESCAPES = tuple((b"\\" + escape, char) for escape, char in ((b"/", b"/"), (b"u002b", b"+"), (b"u002B", b"+")))

_MAX_ESCAPE_BYTES = 6
_STEP = 1024 * 1024


def parse(body: bytes, name: str) -> Any:
    """The value that the JSON text describes. `name`: of the whole text, in errors.

    Raises TooLarge for a long text or too much text, and InvalidRequest for whatever else is not allowed.
    """
    outline = _Outline(body, name)
    outline.check_structure()
    try:
        return json.loads(b"".join(outline.kept).decode(), object_pairs_hook=outline.restore)
    except json.JSONDecodeError as error:
        raise outline.malformed(error.msg, len(error.doc[: error.pos].encode())) from None
    except UnicodeDecodeError as error:
        raise outline.malformed(error.reason, error.start) from None
    except ValueError:
        raise outline.malformed("a number of too many digits") from None


@dataclass(slots=True)
class _Outline:
    """A JSON text in parts: the data that was cut out, the rest with a mark for each cut, and what is outside texts."""

    body: bytes
    name: str
    kept: list[bytes] = field(default_factory=list)
    outside: list[bytes] = field(default_factory=list)
    cut: dict[str, bytes] = field(default_factory=dict)
    """mark -> data; a sender cannot guess a mark"""
    removed: list[tuple[int, int]] = field(default_factory=list)
    """where in the rest each cut is, and how many bytes the rest is shorter by it"""
    num_kept: int = 0
    _secret: str = field(default_factory=lambda: secrets.token_hex(16))

    def __post_init__(self) -> None:
        at, key = 0, b""
        while (start := self.body.find(b'"', at)) != -1:
            between = self._keep(self.body[at:start])
            self.outside.append(between)
            if len(self.outside) > _MAX_TEXTS:
                raise InvalidRequest(self.name, f"at most {_MAX_TEXTS} keys and texts", "more")
            is_data = between.strip() == b":" and (key == DATA.encode() or (b"\\" in key and _unescaped(key) == DATA))
            at = self._cut(start) if is_data else self._text(start, key)
            key = self.body[start + 1 : min(at - 1, start + _MAX_KEY_BYTES)]
        self.outside.append(self._keep(self.body[at:]))

    def check_structure(self) -> None:
        """Raises InvalidRequest for too many elements or too many levels."""
        outside = b"".join(self.outside)
        num_elements = outside.count(b",") + outside.count(b"[") + outside.count(b"{")
        if num_elements > MAX_ELEMENTS:
            raise self._too_many(num_elements)
        steps = (1 if bracket in _OPENING else -1 for bracket in outside.translate(None, _NO_BRACKETS))
        depth = max(accumulate(steps), default=0)
        if depth > MAX_DEPTH:
            raise InvalidRequest(self.name, f"at most {MAX_DEPTH} lists and objects inside each other", depth)

    def restore(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """An object of the text, with its data back in place."""
        tree = dict(pairs)
        if len(tree) != len(pairs):
            ((repeated, count),) = Counter(name for name, _ in pairs).most_common(1)
            raise InvalidRequest(repeated, "each key once in an object", f"{count} times")
        if len(tree) > _MAX_KEYS:
            raise InvalidRequest(self.name, f"at most {_MAX_KEYS} keys in an object", f"{len(tree)} keys")
        if isinstance(mark := tree.get(DATA), str):
            tree[DATA] = self.cut[mark]
        return tree

    def malformed(self, reason: str, at: int | None = None) -> InvalidRequest:
        """`at`: where in the rest, in bytes."""
        if at is not None:
            reason += f" at byte {at + sum(shorter for where, shorter in self.removed if where <= at)}"
        return InvalidRequest(self.name, "JSON in UTF-8", f"{len(self.body)} bytes that do not parse: {reason}")

    def _cut(self, start: int) -> int:
        """Cuts the data at `start` and returns the position after it."""
        end = self.body.find(b'"', start + 1)
        if end == -1:
            raise self.malformed("a text without its end")
        text = self.body[start + 1 : end]
        if b"\\" in text:
            text = _without_escapes(text)
        if text.endswith(b"\\"):  # an escaped quote
            raise InvalidRequest(DATA, "base64", "a text with a quote")
        mark = f"{self._secret}{len(self.cut)}"
        self.cut[mark] = text
        kept = self._keep(f'"{mark}"'.encode())
        self.removed.append((self.num_kept, end + 1 - start - len(kept)))
        return end + 1

    def _text(self, start: int, key: bytes) -> int:
        """Keeps the text at `start` and returns the position after it."""
        latest = start + MAX_TEXT_BYTES + 2
        found = _TEXT.match(self.body, start, latest)
        if found is None and latest < len(self.body):
            raise TooLarge(
                shown(_unescaped(key))[1:-1] or self.name, f"texts of at most {MAX_TEXT_BYTES} bytes", "more"
            )
        if found is None:
            raise self.malformed("a text without its end")
        self._keep(found[0])
        return found.end()

    def _keep(self, piece: bytes) -> bytes:
        self.num_kept += len(piece)
        if self.num_kept > MAX_OUTLINE_BYTES:
            raise TooLarge(self.name, f"at most {MAX_OUTLINE_BYTES} bytes besides the images' data", "more")
        self.kept.append(piece)
        return piece

    def _too_many(self, actual: object) -> InvalidRequest:
        return InvalidRequest(self.name, f"at most {MAX_ELEMENTS} list items and object members", actual)


def _without_escapes(text: bytes) -> bytes:
    """Base64 without JSON's escapes. Other threads can run between its steps, and no step ends within an escape."""
    pieces, at = [], 0
    while at < len(text):
        end = at + _STEP
        if end < len(text) and (begun := text.rfind(b"\\", end - _MAX_ESCAPE_BYTES + 1, end)) != -1:
            end = begun
        piece = text[at:end]
        for escape, char in _ESCAPES:
            piece = piece.replace(escape, char)
        pieces.append(piece)
        at = end
    return b"".join(pieces)


def _unescaped(key: bytes) -> str:
    """A short key as text; empty where it is malformed, which parsing finds."""
    try:
        return str(json.loads(b'"' + key + b'"'))
    except ValueError:
        return ""
