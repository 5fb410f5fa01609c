"""Strict reading of a YAML configuration. Every error names the dotted key, the expected and the actual value.

This module knows no key of any format.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from wavserve.core.errors import BundleError


@dataclass(frozen=True, slots=True)
class Section:
    """A mapping of the file and its dotted path. All methods that read or check a key raise BundleError."""

    path: str
    values: Mapping[str, Any]

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def section(self, key: str) -> Section:
        value = self.values.get(key)
        if not isinstance(value, Mapping):
            raise self.error(key, "a mapping")
        return Section(self._at(key), value)

    def text(self, key: str) -> str:
        value = self.values.get(key)
        if not isinstance(value, str) or not value:
            raise self.error(key, "a text")
        return value

    def flag(self, key: str) -> bool:
        value = self.values.get(key)
        if not isinstance(value, bool):
            raise self.error(key, "true or false")
        return value

    def number(self, key: str) -> float:
        value = self.values.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.error(key, "a number")
        return float(value)

    def count(self, key: str, otherwise: int | None = None) -> int:
        """A positive whole number. `otherwise` is the value of a missing key; None: the key must exist."""
        if otherwise is not None and key not in self.values:
            return otherwise
        value = self.values.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.error(key, "a whole number above 0")
        return value

    def items(self, key: str, kind: type) -> list[Any]:
        """A non-empty list with entries of one type."""
        value = self.values.get(key)
        if not isinstance(value, list) or not value or not all(type(entry) is kind for entry in value):
            raise self.error(key, f"a list of {kind.__name__}")
        return value

    def require_known(self, known: Collection[str]) -> None:
        """Checks that the section has no other keys than `known`."""
        for key in self.values:
            if key not in known:
                raise self.error(key, "no such key")

    def require(self, key: str, expected: object) -> None:
        """Checks that a key is present with this value."""
        if self.values.get(key) != expected:
            raise self.error(key, repr(expected))

    def allow(self, key: str, expected: object) -> None:
        """Checks that a key is missing or has this value."""
        if key in self.values:
            self.require(key, expected)

    def error(self, key: str, expected: object) -> BundleError:
        """The error to raise for a key."""
        actual = repr(self.values[key]) if key in self.values else "nothing"
        return BundleError(f"config: {self._at(key)}: expected {expected}, got {actual}")

    def _at(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key


def read_yaml(path: Path) -> Section:
    """The whole of a YAML file. Raises BundleError naming the file."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise BundleError(f"{path}: expected a YAML file: {error}") from error
    if not isinstance(document, Mapping):
        raise BundleError(f"{path}: expected a YAML mapping, got {type(document).__name__}")
    return Section("", document)
