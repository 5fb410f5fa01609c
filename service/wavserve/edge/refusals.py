"""The last requests that failed, for onlookers.

The list is bounded. It has no session id and none of the values that clients sent: only what was expected.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from wavserve.core.errors import Cancelled, InvalidRequest, Overloaded
from wavserve.core.types import Clock
from wavserve.edge.report import safe_text
from wavserve.edge.status import name_of

OnFailed = Callable[[Exception, str], None]
"""Receives the error of each failed request, and who sent it: a robot's id, or an address."""

MAX_KEPT = 20
_MAX_CHARS = 200


def ignore_failure(error: Exception, sender: str) -> None:
    """Keeps nothing."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Failures of one kind and one sender."""

    sender: str
    name: str
    """of the error, such as `overloaded`"""
    reason: str
    """of the last one"""
    times: int
    at: float
    """when the last one was, in seconds of the list's clock"""


class Refusals:
    """The last kinds of failures; one that repeats is counted."""

    def __init__(self, clock: Clock = time.monotonic, max_kept: int = MAX_KEPT) -> None:
        self._clock = clock
        self._max_kept = max_kept
        self._kept: OrderedDict[tuple[str, str, str], Refusal] = OrderedDict()

    def note(self, error: Exception, sender: str) -> None:
        """A request failed. One that its client cancelled did not."""
        if isinstance(error, Cancelled):
            return
        name, (kind, reason) = name_of(error), _reason(error)
        key = sender, name, kind
        before = self._kept.pop(key, None)
        times = 1 if before is None else before.times + 1
        texts = safe_text(sender, _MAX_CHARS), name, safe_text(reason, _MAX_CHARS)
        self._kept[key] = Refusal(*texts, times, self._clock())
        if len(self._kept) > self._max_kept:
            self._kept.popitem(last=False)

    def latest(self) -> list[Refusal]:
        """Newest first."""
        return list(reversed(self._kept.values()))


def _reason(error: Exception) -> tuple[str, str]:
    """What failures of one kind have in common, and the words of this one."""
    match error:
        case InvalidRequest():
            return error.field, f"{error.field}: expected {error.expected}"
        case Overloaded():
            return error.reason, error.message
    if name_of(error) == "internal":
        return "", "an internal error; the log has it"
    return "", str(error)
