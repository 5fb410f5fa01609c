"""The one settings tree: what it holds, its defaults (each written once, here), and where values come from.

Read by `cli`, its commands and `app` only; every other module is handed the small slice it needs. Sources, later wins:
defaults, a TOML file, the environment, flags. This is the only module that looks at the environment.
"""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from wavserve.errors import SettingsError
from wavserve.processes import SPIN_COUNT

PREFIX = "WAVSERVE_"
CONFIG_VARIABLE = "WAVSERVE_CONFIG"
_NOTHING = "none"


def _listed(value: object) -> object:
    """Several texts in one, as flags and variables give them: `a,b`."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _endpoints(values: tuple[str, ...]) -> tuple[str, ...]:
    parts = [value.rpartition(":") for value in values]
    fit = all(host and "/" not in host and port.isdecimal() and 0 < int(port) < 65536 for host, _, port in parts)
    if not values or not fit or len(set(values)) < len(values):
        raise PydanticCustomError("endpoints", "HOST:PORT[,HOST:PORT...], each once")
    return values


Port = Annotated[int, Field(ge=0, le=65535)]
Positive = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,100}$")]
Endpoints = Annotated[tuple[str, ...], BeforeValidator(_listed), AfterValidator(_endpoints)]
OptionalPath = Annotated[Path | None, BeforeValidator(lambda value: None if value == _NOTHING else value)]
OptionalCount = Annotated[Positive | None, BeforeValidator(lambda value: None if value == _NOTHING else value)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BundleSettings(_Section):
    path: OptionalPath = Field(default=None, description="policy bundle; none: the preset below, made at first start")
    preset: Literal["tiny", "libero", "piper"] = Field(default="tiny", description="bundle used when path is none")
    root: Path = Field(default=Path("bundles"), description="folder in which presets are made")
    seed: Annotated[int, Field(ge=0)] = Field(default=0, description="seed of a preset's random weights")

    @property
    def folder(self) -> Path:
        """Where the bundle is, or will be once the preset is made."""
        return self.path or self.root / self.preset


class BackendSettings(_Section):
    kind: Literal["auto", "local", "triton-embedded", "triton"] = Field(
        default="auto",
        description="who runs the models; local: this process; auto: an embedded Triton where one can run, else local",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto: cuda where there is one")
    text_device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="of the text encoder alone; auto: as device; cpu: its gigabytes stay off the GPU"
    )
    dtype: Literal["float32", "bfloat16", "auto"] = Field(
        default="float32", description="numbers the models compute in; auto: bfloat16 where it is much faster"
    )
    threads: OptionalCount = Field(default=None, description="torch threads of a call; none: by model size")
    workers: OptionalCount = Field(
        default=None, description="local calls at a time on a CPU; none: by the model's size"
    )
    compile: Literal["auto", "on", "off"] = Field(
        default="auto", description="torch's compiler; auto: on a CPU where it works; on: an error where it does not"
    )
    max_cached_texts: Positive = Field(default=64, description="instructions whose keys and values are kept")


class TritonSettings(_Section):
    urls: Endpoints = Field(default=("127.0.0.1:18001",), description="gRPC endpoints of running Tritons, one a GPU")
    repository: Path = Field(
        default=Path(__file__).parents[2] / "model_repository",
        description="Triton's model repository, for the embedded server; it is in the source tree",
    )
    canary_s: Seconds = Field(default=1.0, description="how often every model is asked whether it works")
    hang_s: Seconds = Field(default=60.0, description="a model that answers nothing for so long is started again")
    load_s: Seconds = Field(default=600.0, description="longest that loading a model may take")
    max_repairs: Positive = Field(default=3, description="failed repairs in a row until the server is started again")
    shm_bytes: Positive = Field(default=4 * 1024 * 1024, description="shared memory of a model's calls at its start")


class HttpSettings(_Section):
    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: Port = Field(default=8000, description="0: any free port")


class GrpcSettings(_Section):
    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: Port = Field(default=8001, description="0: any free port")


class LimitSettings(_Section):
    max_body_bytes: Positive = Field(default=32 * 1024 * 1024, description="largest request, both edges")
    max_image_bytes: Positive = Field(default=16 * 1024 * 1024, description="largest image as it travels")
    max_image_pixels: Positive = Field(default=8_388_608, description="largest image, judged before it is decoded")
    max_concurrent_plans: Positive = Field(default=16, description="plans under way at a time; more are refused")
    repair_s: Seconds = Field(default=60.0, description="how long plans under way wait for models that are repaired")
    drain_s: Seconds = Field(default=30.0, description="how long plans under way are waited for when stopping")


class PlannerSettings(_Section):
    slice_size: Positive = Field(
        default=8, description="video samples of a plan that travel together at most; slow models get fewer"
    )
    slices_in_flight: Positive = Field(default=2, description="slices one plan has under way")


class BatcherSettings(_Section):
    max_rows: Positive = Field(default=16, description="batch rows of one backend call")
    ready: Annotated[int, Field(ge=0)] = Field(
        default=1, description="calls handed to a busy backend, so that it finds the next one"
    )
    slice_s: Seconds = Field(
        default=0.2, description="how long a call and those ready behind it may take: what an urgent plan waits for"
    )
    arena_retry_s: Seconds = Field(default=0.05, description="how soon a full arena is tried again")


class ArenaSettings(_Section):
    num_slots: Positive = Field(default=32, description="video samples whose features are kept at a time")
    lease_s: Seconds = Field(default=60.0, description="after this an unread slot is taken back")
    prefix: Name = Field(
        default="wavserve", description="of the arena's file in /dev/shm, where Triton runs the models"
    )


class SessionSettings(_Section):
    ttl_s: Seconds = Field(default=600.0, description="a session unused for longer is forgotten")
    max_sessions: Positive = Field(default=256, description="sessions kept; those of a single plan go first")


class RecordSettings(_Section):
    folder: OptionalPath = Field(default=None, description="where requests are kept for replay; none: nowhere")


class LogSettings(_Section):
    level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="least severe line written")
    format: Literal["text", "json"] = Field(default="text", description="json: one object a line")


class Settings(_Section):
    """The tree. Keys are dotted: `http.port`."""

    bundle: BundleSettings = BundleSettings()
    backend: BackendSettings = BackendSettings()
    triton: TritonSettings = TritonSettings()
    http: HttpSettings = HttpSettings()
    grpc: GrpcSettings = GrpcSettings()
    limits: LimitSettings = LimitSettings()
    planner: PlannerSettings = PlannerSettings()
    batcher: BatcherSettings = BatcherSettings()
    arena: ArenaSettings = ArenaSettings()
    sessions: SessionSettings = SessionSettings()
    record: RecordSettings = RecordSettings()
    log: LogSettings = LogSettings()


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


def spin_briefly() -> None:
    """Has OpenMP's threads of this process not spin for long, unless its user decided; before torch is imported."""
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)


def load_from_process(file: Path | None, flags: Iterable[Given] = ()) -> Loaded:
    """`load_settings` with this process's environment."""
    return load_settings(file, os.environ, flags)


def as_environment(settings: Settings, keys: Iterable[str]) -> dict[str, str]:
    """The variables that give another process of ours these dotted keys' values."""
    told = {}
    for key in keys:
        section, name = key.split(".")
        value = getattr(getattr(settings, section), name)
        text = _NOTHING if value is None else ",".join(value) if isinstance(value, tuple) else str(value)
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
