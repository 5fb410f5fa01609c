"""What a user asks of an evaluation: flags, or a TOML file of the same names. Each default is written once, here.

The defaults are the protocol of the literature. Knows neither the simulator nor the service.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import product
from pathlib import Path
from typing import Any, Literal

from wavserve.clients import tables
from wavserve.clients.gateways import parse_targets
from wavserve.clients.libero.cells import Cell, Clock
from wavserve.clients.libero.clocks import MAX_LATENCY_MS
from wavserve.clients.libero.records import RunConfig
from wavserve.core.address import is_url
from wavserve.core.errors import InvalidRequest, SettingsError, shown
from wavserve.core.messages import PolicyInfo
from wavserve.core.spec import Mode, RtcMode

Transport = Literal["stream", "grpc", "http"]

_OPTION_NAMES = {"k": "num_iterations", "n": "num_video_samples", "m": "num_value_samples"}
MAX_SHIFT_M = 0.1
GRPC_SERVICE, HTTP_SERVICE = "127.0.0.1:8001", "http://127.0.0.1:8000"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Flags and keys of the file. A tuple is a comma-separated list in a flag."""

    suite: tuple[str, ...]
    tasks: tuple[int, ...] = ()
    """indices in each suite; empty: all"""
    num_trials_per_task: int = 50
    first_state: int = 0
    replan_steps: int = 8
    num_steps_wait: int = 10
    max_steps: int | None = None
    seed: int = 7
    shift: float = 0.0
    """how far objects are moved, in m; 0: the shipped initial states as they are"""
    rotation: int | None = None
    num_envs: int = 1
    transport: Transport = "grpc"
    service: str | None = None
    in_process: str | None = None
    traces: str | None = None
    """URL of a collector"""
    planner: tuple[Mode, ...] = ()
    k: tuple[int, ...] = ()
    n: tuple[int, ...] = ()
    m: tuple[int, ...] = ()
    clock: Clock = "lockstep"
    latency_ms: tuple[float, ...] = (0.0,)
    jitter_ms: float = 0.0
    loss: float = 0.0
    rtc: tuple[RtcMode, ...] = ("off",)
    cells: tuple[Cell, ...] = ()
    """instead of planner, k, n, m, clock, latency_ms, jitter_ms, loss and rtc"""
    allow_untrained: bool = False
    no_antialiasing: bool = False
    out: str = "libero-results"
    videos: int = 3

    @property
    def address(self) -> str:
        """Of the service; of several gateways with commas."""
        return self.service or (HTTP_SERVICE if self.transport == "http" else GRPC_SERVICE)

    @property
    def way(self) -> str:
        """How the plans travel, for the record."""
        return self.transport if self.in_process is None else "in-process"

    @property
    def antialiasing(self) -> bool:
        """Whether pictures are rendered with it."""
        return not self.no_antialiasing


_OF_CELLS = ("planner", "k", "n", "m", "clock", "latency_ms", "jitter_ms", "loss", "rtc")


def read_options(flags: Mapping[str, Any], file: Path | None) -> Options:
    """The flags, over the keys of the file, over the defaults. Raises SettingsError naming the key.

    `flags`: those that were given, by name; a list where the option is a tuple.
    """
    table = {} if file is None else tables.toml(file)
    if "suite" not in table and "suite" not in flags:
        raise InvalidRequest("--suite", "names of suites, such as libero_object", "none")
    options = tables.read(Options, {**table, **flags})
    both = [name for name in _OF_CELLS if name in {**table, **flags}] if options.cells else []
    if both:
        raise SettingsError(f"{both[0]}: expected no such key beside cells, which state it each, got one")
    _check(options)
    return options


def cells_of(options: Options) -> tuple[Cell, ...]:
    """The cells of an evaluation: those of the file, or every combination of the lists, named by what differs.

    Raises SettingsError for two cells of one name.
    """
    if options.cells:
        names = [cell.name for cell in options.cells]
        if len(set(names)) < len(names) or not all(name.replace("-", "").isalnum() for name in names):
            raise SettingsError(f"cells.name: expected distinct names of letters, digits and -, got {shown(names)}")
        return options.cells
    timed = {"clock": options.clock, "jitter_ms": options.jitter_ms, "loss": options.loss}
    return tuple(
        Cell(name=_name(options, planner, latency_ms, rtc), planner=planner, latency_ms=latency_ms, rtc=rtc, **timed)  # type: ignore[arg-type]
        for planner, latency_ms, rtc in product(_planners(options), options.latency_ms, options.rtc)
    )


def run_config(options: Options, policy: PolicyInfo, rotation: int, versions: Mapping[str, str]) -> RunConfig:
    """What the run's folder states. `versions`: of wavserve and of the simulator's parts."""
    same = {field.name for field in fields(RunConfig)} & {field.name for field in fields(Options)} - {"cells"}
    return RunConfig(
        **{name: getattr(options, name) for name in same} | {"rotation": rotation, "transport": options.way},
        antialiasing=options.antialiasing,
        suites=options.suite,
        cells=cells_of(options),
        policy=policy.name,
        policy_digest=policy.digest,
        untrained=policy.untrained,
        versions=dict(versions),
    )


def _planners(options: Options) -> Iterator[dict[str, object]]:
    """The planner's options of each combination. Without iterations nothing is sampled, so `off` is one of them.
    `best_of_n` always has one iteration."""
    sweeps = {key: [{name: value} for value in getattr(options, key)] or [{}] for key, name in _OPTION_NAMES.items()}
    for mode in options.planner or (None,):
        chosen: dict[str, object] = {} if mode is None else {"mode": mode}
        if mode == "off":
            yield chosen
            continue
        swept = [parts for key, parts in sweeps.items() if (mode, key) != ("best_of_n", "k")]
        for parts in product(*swept):
            yield chosen | {name: value for part in parts for name, value in part.items()}


def _name(options: Options, planner: Mapping[str, object], latency_ms: float, rtc: str) -> str:
    """`paper-k5-100ms-rtc-guided`: the mode, then what has several values."""
    parts = [str(planner.get("mode", "policy")).replace("_", "-")]
    for key, name in _OPTION_NAMES.items():
        if len(getattr(options, key)) > 1 and name in planner:
            parts.append(f"{key}{planner[name]}")
    if len(options.latency_ms) > 1:
        parts.append(f"{latency_ms:g}ms")
    if len(options.rtc) > 1:
        parts.append(rtc.replace("_", "-") if rtc != "off" else "no-rtc")
    return "-".join(parts)


_BOUNDS: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("num_trials_per_task", lambda n: n >= 1, "at least 1"),
    ("first_state", lambda n: n >= 0, "at least 0"),
    ("replan_steps", lambda n: n >= 1, "at least 1"),
    ("num_steps_wait", lambda n: n >= 0, "at least 0"),
    ("max_steps", lambda n: n is None or n >= 1, "at least 1"),
    ("seed", lambda n: 0 <= n < 2**31, "0 to 2147483647"),
    ("shift", lambda metres: 0 <= metres <= MAX_SHIFT_M, f"0 to {MAX_SHIFT_M:g}"),
    ("rotation", lambda degrees: degrees in (None, 0, 180), "0 or 180"),
    ("num_envs", lambda n: n >= 1, "at least 1"),
    ("videos", lambda n: n >= 0, "at least 0"),
)
_CELL_BOUNDS: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("latency_ms", lambda ms: 0 <= ms <= MAX_LATENCY_MS, f"0 to {MAX_LATENCY_MS:g}"),
    ("jitter_ms", lambda ms: 0 <= ms <= MAX_LATENCY_MS, f"0 to {MAX_LATENCY_MS:g}"),
    ("loss", lambda share: 0 <= share < 1, "0, or a share below 1"),
)


def _check(options: Options) -> None:
    """Raises InvalidRequest naming the flag."""
    for name, allowed, expected in _BOUNDS:
        if not allowed(getattr(options, name)):
            raise InvalidRequest(flag_of(name), expected, getattr(options, name))
    for field in fields(Options):
        values = getattr(options, field.name)
        if field.name != "cells" and isinstance(values, tuple) and len(set(values)) < len(values):
            raise InvalidRequest(flag_of(field.name), "each value once", ", ".join(map(str, values)))
    for cell in cells_of(options):
        for name, allowed, expected in _CELL_BOUNDS:
            if not allowed(getattr(cell, name)):
                raise InvalidRequest(flag_of(name), expected, getattr(cell, name))
        timed = [name for name, *_ in _CELL_BOUNDS if getattr(cell, name)]
        if timed and cell.clock != "virtual":
            raise InvalidRequest(flag_of(timed[0]), "0, except with --clock virtual", f"--clock {cell.clock}")
    if options.in_process is not None and options.service is not None:
        raise InvalidRequest("--service", "none beside --in-process", options.service)
    if options.in_process is not None and options.traces is not None:
        raise InvalidRequest("--traces", "none beside --in-process, which has no client", options.traces)
    if is_url(parse_targets(options.address, "--service")[0]) != (options.transport == "http"):
        expected = "http://HOST:PORT" if options.transport == "http" else "HOST:PORT"
        raise InvalidRequest("--service", f"{expected} with --transport {options.transport}", options.address)


def flag_of(name: str) -> str:
    """The flag of an option."""
    return "--" + name.replace("_", "-")
