"""Reads the settings from defaults, a TOML file, the environment and flags. Later sources win.

This is the only module that reads or changes the environment. It makes the environment of child processes, and sets
the variables that this process needs to compute.
"""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError

from wavserve.app.settings import NOTHING, Settings
from wavserve.core.errors import SettingsError
from wavserve.system import processes

PREFIX = "WAVSERVE_"
CONFIG_VARIABLE = "WAVSERVE_CONFIG"


@dataclass(frozen=True, slots=True)
class Given:
    """One value as it was given: text from the environment or a flag, a plain TOML value from a file."""

    key: str
    value: object
    source: str
    """readable, such as `file wavserve.toml`, `environment WAVSERVE_HTTP__PORT`, `flag --set`"""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings, and the source of every dotted key's value."""

    settings: Settings
    sources: Mapping[str, str]

    def rows(self) -> Iterator[tuple[str, object, str]]:
        """`(key, value, source)` of every leaf, in the tree's order."""
        for section, values in self.settings.model_dump(mode="json").items():
            for name, value in values.items():
                key = f"{section}.{name}"
                yield key, value, self.sources[key]


def inherited_environment() -> dict[str, str]:
    """This process's environment for a child, without our own variables. The child gets those explicitly."""
    return {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}


def prepare_to_compute() -> None:
    """Sets those variables of `processes.COMPUTE_ENVIRONMENT` that are not set. Call it before torch is imported."""
    processes.prepare_to_compute(os.environ)


def load_from_process(file: Path | None, flags: Iterable[Given] = ()) -> Loaded:
    """`load_settings` with this process's environment."""
    return load_settings(file, os.environ, flags)


def as_environment(settings: Settings, keys: Iterable[str]) -> dict[str, str]:
    """Environment variables that give these dotted keys' values to another process of ours."""
    variables = {}
    for key in keys:
        section, name = key.split(".")
        value = getattr(getattr(settings, section), name)
        text = NOTHING if value is None else ",".join(value) if isinstance(value, tuple) else str(value)
        variables[PREFIX + key.upper().replace(".", "__")] = text
    return variables


def load_settings(file: Path | None, environ: Mapping[str, str], flags: Iterable[Given] = ()) -> Loaded:
    """Builds the tree from its sources. `file` None: the file that `WAVSERVE_CONFIG` names, if any.

    Raises SettingsError for an unknown key (with its source and the nearest known keys), a wrong value (with key,
    source, expected and actual), an unreadable file, and values that contradict each other.
    """
    if file is None and environ.get(CONFIG_VARIABLE):
        file = Path(environ[CONFIG_VARIABLE])
    known = _leaves()
    sources = dict.fromkeys(known, "default")
    tree: dict[str, dict[str, Any]] = {name: {} for name in Settings.model_fields}
    for given in [*_from_file(file), *_from_environment(environ), *flags]:
        if given.key not in known:
            raise SettingsError(_unknown(given, known))
        section, name = given.key.split(".")
        tree[section][name] = _parse(given, known[given.key])
        sources[given.key] = given.source
    settings = Settings.model_validate(tree)
    _check_together(settings, sources)
    return Loaded(settings, sources)


def _leaves() -> dict[str, TypeAdapter[Any]]:
    """A parser for every dotted key."""
    parsers: dict[str, TypeAdapter[Any]] = {}
    for section, default in Settings():
        for name, field in type(default).model_fields.items():
            constrained: Any = Annotated[field.annotation, field]
            parsers[f"{section}.{name}"] = TypeAdapter(constrained)
    return parsers


def _from_file(file: Path | None) -> Iterator[Given]:
    if file is None:
        return
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"file {file}: expected readable TOML, got {error}") from error
    for section, values in content.items():
        items = values.items() if isinstance(values, dict) else [("", values)]
        for name, value in items:
            yield Given(f"{section}.{name}".rstrip("."), value, f"file {file}")


def _from_environment(environ: Mapping[str, str]) -> Iterator[Given]:
    for variable in sorted(environ):
        if variable.startswith(PREFIX) and variable != CONFIG_VARIABLE:
            key = variable.removeprefix(PREFIX).lower().replace("__", ".")
            yield Given(key, environ[variable], f"environment {variable}")


def _unknown(given: Given, known: Iterable[str]) -> str:
    """The error text, with the known keys that are spelt most alike. `_` counts as a dot, a section as all its keys."""
    of_section = [key for key in known if key.startswith(f"{given.key}.")]
    near = of_section or difflib.get_close_matches(given.key.replace("_", "."), list(known), n=3, cutoff=0.6)
    if given.source.startswith("environment"):
        near = [PREFIX + key.upper().replace(".", "__") for key in near]
    hint = f"did you mean {' or '.join(near)}?" if near else "`wavserve config show` lists the keys"
    return f"{given.source}: unknown setting {given.key!r}; {hint}"


def _parse(given: Given, parser: TypeAdapter[Any]) -> object:
    """Parses text. A value from a file must already have the right type."""
    try:
        if given.source.startswith("file "):
            return parser.validate_json(json.dumps(given.value), strict=True)
        return parser.validate_python(given.value)
    except ValidationError as error:
        expected = error.errors()[0]["msg"].removeprefix("Input should be ")
    except TypeError:  # a TOML date has no JSON form
        expected = "a text, a number or a boolean"
    raise SettingsError(f"{given.source}: {given.key}: expected {expected}, got {given.value!r}")


def _check_together(settings: Settings, sources: Mapping[str, str]) -> None:
    """Checks that compare several keys."""
    slots, size = settings.arena.num_slots, settings.planner.slice_size
    if slots < size:  # a slice gets all its slots or none, so no plan could run
        raise SettingsError(
            f"arena.num_slots ({sources['arena.num_slots']}): expected at least planner.slice_size = {size} "
            f"({sources['planner.slice_size']}), got {slots}"
        )
    http, grpc = settings.http, settings.grpc
    if http.port and (http.host, http.port) == (grpc.host, grpc.port):
        raise SettingsError(
            f"grpc.port ({sources['grpc.port']}): expected a port other than http.port ({sources['http.port']}), "
            f"got {grpc.port}"
        )
