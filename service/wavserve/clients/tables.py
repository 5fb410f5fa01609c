"""Reads a table (TOML, JSON) into a frozen dataclass, strictly: unknown or missing keys and wrong types are refused.

The dataclass is the schema, and holds each default once. Knows no field of it.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import tomllib
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from wavserve.core.errors import SettingsError, shown

T = TypeVar("T")

_KINDS = {str: "a text", int: "an integer", float: "a number", bool: "true or false"}


def toml(file: Path) -> dict[str, Any]:
    """The table of a TOML file. Raises SettingsError naming the file."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{file}: expected a file that can be read: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{file}: expected TOML: {error}") from error


def read(kind: type[T], table: object, path: str = "") -> T:
    """The dataclass that the table describes. Raises SettingsError with the dotted key, expected and actual."""
    if not isinstance(table, Mapping):
        raise SettingsError(f"{path}: expected a table, got {shown(table)}")
    hints = get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in table:
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise SettingsError(f"{_dotted(path, key)}: unknown key{hint} Known: {', '.join(fields)}")
    for name, field in fields.items():
        if name not in table and field.default is field.default_factory is dataclasses.MISSING:
            raise SettingsError(f"{_dotted(path, name)}: expected {_expected(hints[name])}, got nothing")
    return kind(**{name: _value(hints[name], table[name], _dotted(path, name)) for name in fields if name in table})


def _expected(hint: Any) -> str:
    """What a value of this type looks like, in words."""
    if get_origin(hint) is Literal:
        return " or ".join(map(str, get_args(hint)))
    return "a list" if get_origin(hint) is tuple else _KINDS.get(hint, "a table")


def _value(hint: Any, value: object, path: str) -> object:
    if dataclasses.is_dataclass(hint):
        return read(hint, value, path)  # type: ignore[arg-type]
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise SettingsError(f"{path}: expected {_expected(hint)}, got {shown(value)}")
        return value
    if get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise SettingsError(f"{path}: expected a list, got {shown(value)}")
        return tuple(_value(get_args(hint)[0], each, f"{path}[{i}]") for i, each in enumerate(value))
    if get_origin(hint) in {types.UnionType, Union}:
        [inner] = [each for each in get_args(hint) if each is not type(None)]
        return None if value is None else _value(inner, value, path)
    if get_origin(hint) is Mapping:
        if not isinstance(value, Mapping):
            raise SettingsError(f"{path}: expected a table, got {shown(value)}")
        return dict(value)
    return _plain(hint, value, path)


def _plain(hint: Any, value: object, path: str) -> object:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not hint or (isinstance(value, float) and not math.isfinite(value)):
        raise SettingsError(f"{path}: expected {_KINDS[hint]}, got {shown(value)}")
    return value


def _dotted(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)
