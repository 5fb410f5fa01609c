"""A YAML configuration read strictly: every complaint names the dotted key, what was expected and what is there.

Called by `official.py`. Knows no key of any format.
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
    """A mapping of the file and the path that leads to it. All readers raise BundleError."""

    path: str
    values: Mapping[str, Any]

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def section(self, key: str) -> Section:
        value = self.values.get(key)
        if not isinstance(value, Mapping):
            raise self.refuse(key, "a mapping")
        return Section(self._at(key), value)

    def text(self, key: str) -> str:
        value = self.values.get(key)
        if not isinstance(value, str) or not value:
            raise self.refuse(key, "a text")
        return value

    def flag(self, key: str) -> bool:
        value = self.values.get(key)
        if not isinstance(value, bool):
            raise self.refuse(key, "true or false")
        return value

    def number(self, key: str) -> float:
        value = self.values.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.refuse(key, "a number")
        return float(value)

    def count(self, key: str, otherwise: int | None = None) -> int:
        """A positive whole number; `otherwise`, where given, stands for a key that is not there."""
        if otherwise is not None and key not in self.values:
            return otherwise
        value = self.values.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.refuse(key, "a whole number above 0")
        return value

    def items(self, key: str, kind: type) -> list[Any]:
        """A list that is not empty, of entries of one type."""
        value = self.values.get(key)
        if not isinstance(value, list) or not value or not all(type(entry) is kind for entry in value):
            raise self.refuse(key, f"a list of {kind.__name__}")
        return value

    def only(self, known: Collection[str]) -> None:
        """No key but the known ones."""
        for key in self.values:
            if key not in known:
                raise self.refuse(key, "no such key")

    def require(self, key: str, expected: object) -> None:
        """A key that must be there with this value."""
        if self.values.get(key) != expected:
            raise self.refuse(key, repr(expected))

    def allow(self, key: str, expected: object) -> None:
        """A key that may be missing, but not have another value."""
        if key in self.values:
            self.require(key, expected)

    def refuse(self, key: str, expected: object) -> BundleError:
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
