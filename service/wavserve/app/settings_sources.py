"""Reads the settings from defaults, a TOML file, the environment and flags. Later sources win.

Gets the environment as an argument or from `app.environment`.
"""

from __future__ import annotations

import difflib
import json
import logging
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError

from wavserve.app import environment
from wavserve.app.environment import PREFIX
from wavserve.app.settings import Settings
from wavserve.app.settings_types import NOTHING
from wavserve.core.address import without_login
from wavserve.core.errors import SettingsError
from wavserve.system.texts import printable

log = logging.getLogger(__name__)

CONFIG_VARIABLE = "WAVSERVE_CONFIG"
_SECRET = ("sessions.url",)  # a wrong value may still hold a password

_KUBERNETES = re.compile(
    r"\w+_SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)=.*"
    r"|\w+_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?=.*"
    r"|\w+_PORT=(tcp|udp|sctp)://.*"
)
"""`NAME=VALUE` of the variables that Kubernetes sets beside a Service, here one whose name begins with `wavserve`."""


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
    warnings: tuple[str, ...] = ()
    """one for each variable that looks like a setting and is none"""

    def rows(self) -> Iterator[tuple[str, object, str]]:
        """`(key, value, source)` of every leaf, in the tree's order."""
        for section, values in self.settings.model_dump(mode="json").items():
            for name, value in values.items():
                key = f"{section}.{name}"
                yield key, value, self.sources[key]


def load_from_process(file: Path | None, flags: Iterable[Given] = ()) -> Loaded:
    """`load_settings` with this process's environment. Logs the warnings."""
    loaded = load_settings(file, environment.variables(), flags)
    for warning in loaded.warnings:
        log.warning(warning)  # goes to standard error where logging is not configured yet
    return loaded


def as_environment(settings: Settings, keys: Iterable[str]) -> dict[str, str]:
    """Environment variables that give these dotted keys' values to another process of ours."""
    variables = {}
    for key in keys:
        section, name = key.split(".")
        value = getattr(getattr(settings, section), name)
        text = NOTHING if value is None else ",".join(value) if isinstance(value, tuple) else str(value)
        variables[_variable(key)] = text
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
    return Loaded(settings, sources, tuple(_warnings(environ, known)))


def _leaves() -> dict[str, TypeAdapter[Any]]:
    """A parser for every dotted key."""
    parsers: dict[str, TypeAdapter[Any]] = {}
    for section, default in Settings():
        for name, field in type(default).model_fields.items():
            constrained: Any = Annotated[field.annotation, field]
            parsers[f"{section}.{name}"] = TypeAdapter(constrained)
    return parsers


def descriptions() -> dict[str, str]:
    """The description of every dotted key."""
    return {
        f"{section}.{name}": str(field.description)
        for section, default in Settings()
        for name, field in type(default).model_fields.items()
    }


def _from_file(file: Path | None) -> Iterator[Given]:
    if file is None:
        return
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"file {printable(str(file))}: expected readable TOML, got {error}") from error
    for section, values in content.items():
        items = values.items() if isinstance(values, dict) else [("", values)]
        for name, value in items:
            yield Given(f"{section}.{name}".rstrip("."), value, f"file {printable(str(file))}")


def _from_environment(environ: Mapping[str, str]) -> Iterator[Given]:
    for variable in _variables(environ):
        if _is_setting(variable):
            yield Given(_key(variable), environ[variable], f"environment {printable(variable)}")


def _warnings(environ: Mapping[str, str], known: Iterable[str]) -> Iterator[str]:
    for variable in _variables(environ):
        if not _is_setting(variable):
            hint = _hint(_key(variable), known, as_variables=True)
            yield f"environment {printable(variable)}: ignored, because it is no setting; {hint}"


def _variables(environ: Mapping[str, str]) -> Iterator[str]:
    """Our variables by name, without the one that names a file and without those of Kubernetes."""
    names = {_variable(key) for key in _leaves()}
    for variable in sorted(environ):
        ours = variable.startswith(PREFIX) and variable != CONFIG_VARIABLE
        if ours and (variable in names or not _KUBERNETES.fullmatch(f"{variable}={environ[variable]}")):
            yield variable


def _is_setting(variable: str) -> bool:
    """Whether the name has the form of a setting's, with `__` for the dot. The setting may not exist."""
    return "__" in variable.removeprefix(PREFIX)


def _key(variable: str) -> str:
    return variable.removeprefix(PREFIX).lower().replace("__", ".")


def _variable(key: str) -> str:
    return PREFIX + key.upper().replace(".", "__")


def _unknown(given: Given, known: Iterable[str]) -> str:
    hint = _hint(given.key, known, as_variables=given.source.startswith("environment"))
    return f"{given.source}: unknown setting {without_login(given.key)!r}; {hint}"


def _hint(key: str, known: Iterable[str], as_variables: bool) -> str:
    """Names the known keys that are spelt most alike. `_` counts as a dot, a section as all its keys."""
    candidates = [*known, "config"] if as_variables else list(known)
    of_section = [each for each in candidates if each.startswith(f"{key}.")]
    near = of_section or difflib.get_close_matches(key.replace("_", "."), candidates, n=3, cutoff=0.6)
    shown = [_variable(each) for each in near] if as_variables else near
    return f"did you mean {' or '.join(shown)}?" if shown else "`wavserve config show` lists the keys"


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
    actual = "another text" if given.key in _SECRET else repr(_without_logins(given.value))
    raise SettingsError(f"{given.source}: {given.key}: expected {expected}, got {actual}")


def _without_logins(value: object) -> object:
    """A value without the passwords of URLs in it, as it may be printed."""
    if isinstance(value, str):
        return without_login(value)
    return [_without_logins(each) for each in value] if isinstance(value, list) else value


def _check_together(settings: Settings, sources: Mapping[str, str]) -> None:
    """Checks that compare several keys."""
    slots, size = settings.arena.num_slots, settings.planner.slice_size
    if slots < size:  # a slice gets all its slots or none, so no plan could run
        raise SettingsError(
            f"arena.num_slots ({sources['arena.num_slots']}): expected at least planner.slice_size = {size} "
            f"({sources['planner.slice_size']}), got {slots}"
        )
    if settings.sessions.url is not None and settings.sessions.url_file is not None:
        raise SettingsError(
            f"sessions.url_file ({sources['sessions.url_file']}): expected none beside sessions.url "
            f"({sources['sessions.url']}), got {settings.sessions.url_file}"
        )
    http, grpc = settings.http, settings.grpc
    if http.port and (http.host, http.port) == (grpc.host, grpc.port):
        raise SettingsError(
            f"grpc.port ({sources['grpc.port']}): expected a port other than http.port ({sources['http.port']}), "
            f"got {grpc.port}"
        )
