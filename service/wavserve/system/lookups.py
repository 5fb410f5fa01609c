"""How often caches had what was asked for, and what of that is new since the last look. Knows no cache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

RESULTS = ("hit", "miss")
NAME = "model_cache_lookups"
MEANING = "Lookups in a cache of a model's process."


@dataclass(slots=True)
class Lookups:
    """Counts of one cache since its process's start. One thread at a time counts."""

    hit: int = 0
    miss: int = 0

    def add(self, found: bool) -> None:
        if found:
            self.hit += 1
        else:
            self.miss += 1


class NewLookups:
    """What was looked up since the last time, for counters that can only be raised."""

    def __init__(self, caches: Mapping[str, Lookups]) -> None:
        self._caches = caches
        self._told = dict.fromkeys(self.series(), 0)

    def series(self) -> Iterator[tuple[str, str]]:
        """(cache, result) of every count."""
        return ((cache, result) for cache in self._caches for result in RESULTS)

    def take(self) -> Iterator[tuple[str, str, int]]:
        """(cache, result, how many more)."""
        for cache, result in self.series():
            total = getattr(self._caches[cache], result)
            more, self._told[cache, result] = total - self._told[cache, result], total
            yield cache, result, more
