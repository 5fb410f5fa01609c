"""Where the settings' values come from: defaults, a TOML file, the environment, flags; the later wins.

Read by `cli`, its commands and the composition roots. This is the only module that looks at the environment, and the
one that tells this process and its children what processes that compute are told.
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
    """One value as somebody gave it: text from the environment or a flag, a plain TOML value from a file."""

    key: str
    value: object
    source: str
    """readable: `file wavserve.toml`, `environment WAVSERVE_HTTP__PORT`, `flag --set`"""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings, and for every dotted key where its value came from."""

    settings: Settings
    sources: Mapping[str, str]

    def rows(self) -> Iterator[tuple[str, object, str]]:
        """`(key, value, source)` of every leaf, in the tree's order."""
        for section, values in self.settings.model_dump(mode="json").items():
            for name, value in values.items():
                key = f"{section}.{name}"
                yield key, value, self.sources[key]


def inherited_environment() -> dict[str, str]:
    """This process's environment for a child, without our own variables: those the child is given on purpose."""
    return {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}


def prepare_to_compute() -> None:
    """Tells this process what processes that compute are told, unless its user decided; before torch is imported."""
    processes.prepare_to_compute(os.environ)


def load_from_process(file: Path | None, flags: Iterable[Given] = ()) -> Loaded:
    """`load_settings` with this process's environment."""
    return load_settings(file, os.environ, flags)


def as_environment(settings: Settings, keys: Iterable[str]) -> dict[str, str]:
    """The variables that give another process of ours these dotted keys' values."""
    told = {}
    for key in keys:
        section, name = key.split(".")
        value = getattr(getattr(settings, section), name)
        text = NOTHING if value is None else ",".join(value) if isinstance(value, tuple) else str(value)
        told[PREFIX + key.upper().replace(".", "__")] = text
    return told


def load_settings(file: Path | None, environ: Mapping[str, str], flags: Iterable[Given] = ()) -> Loaded:
    """The tree from its sources; `file` None means the one `WAVSERVE_CONFIG` names, if any.

    Raises SettingsError: unknown key (with its source and the nearest known ones), wrong value (key, source, expected,
    actual), unreadable file, or values that cannot stand together.
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
    found: dict[str, TypeAdapter[Any]] = {}
    for section, default in Settings():
        for name, field in type(default).model_fields.items():
            constrained: Any = Annotated[field.annotation, field]
            found[f"{section}.{name}"] = TypeAdapter(constrained)
    return found


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
    """Nearest by spelling, an underscore taken for a dot and a bare section for any of its keys."""
    of_section = [key for key in known if key.startswith(f"{given.key}.")]
    near = of_section or difflib.get_close_matches(given.key.replace("_", "."), list(known), n=3, cutoff=0.6)
    if given.source.startswith("environment"):
        near = [PREFIX + key.upper().replace(".", "__") for key in near]
    hint = f"did you mean {' or '.join(near)}?" if near else "`wavserve config show` lists the keys"
    return f"{given.source}: unknown setting {given.key!r}; {hint}"


def _parse(given: Given, parser: TypeAdapter[Any]) -> object:
    """Text is parsed; a value from a file must have the right type already."""
    try:
        if given.source.startswith("file "):
            return parser.validate_json(json.dumps(given.value), strict=True)
        return parser.validate_python(given.value)
    except ValidationError as error:
        expected = error.errors()[0]["msg"].removeprefix("Input should be ")
    except TypeError:  # a TOML date has no JSON form
        expected = "a text, a number or a truth value"
    raise SettingsError(f"{given.source}: {given.key}: expected {expected}, got {given.value!r}")


def _check_together(settings: Settings, sources: Mapping[str, str]) -> None:
    """What no single key can be blamed for."""
    slots, size = settings.arena.num_slots, settings.planner.slice_size
    if slots < size:  # a slice gets all its slots or none, so no plan could ever run
        raise SettingsError(
            f"arena.num_slots ({sources['arena.num_slots']}): expected at least planner.slice_size = {size} "
            f"({sources['planner.slice_size']}), got {slots}"
        )
    http, grpc = settings.http, settings.grpc
    if http.port and (http.host, http.port) == (grpc.host, grpc.port):
        raise SettingsError(
            f"grpc.port ({sources['grpc.port']}): expected another than http.port ({sources['http.port']}), "
            f"got {grpc.port}"
        )
