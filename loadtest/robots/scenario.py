"""A scenario: which robots run when, how they behave, and what is judged. Read from TOML, checked, frozen.

An unknown key or a wrong value is refused with file, key, expected and actual. This module knows nothing of how robots
or services work.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

FOLDER = Path(__file__).parents[1] / "scenarios"

Edge = Literal["http-json", "http-multipart", "grpc"]
Measure = Literal["capacity", "floor", "lone", "alone"]
"""What a phase measures: plans a second at full load; the same without planning (K=0); the latency of one robot alone;
the latency of one group alone."""
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class ScenarioError(ValueError):
    """A scenario that cannot be run; the message says where and why."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RobotGroup(_Table):
    """Robots that behave alike."""

    edge: Edge = Field(description="transport to the service")
    control_hz: Positive = Field(default=20.0, description="steps executed a second")
    executed: int = Field(default=8, ge=0, description="steps executed of a chunk; 0: request the next at once")
    replan_at: int = Field(default=4, ge=0, description="request the next chunk when this many steps remain")
    think_s: Seconds = Field(default=0.0, description="pause before every request")
    jitter_s: Seconds = Field(default=0.0, description="largest random time added to every pause")
    honours_retry_after: bool = Field(default=True, description="wait for the retry time of a refusal")
    deadline_ms: Count | None = Field(default=None, description="deadline of every request")
    deadline_plans: Positive | None = Field(
        default=None, description="the same, in units of a lone robot's plan, which an earlier phase measures"
    )
    planner: Mapping[str, str | bool | int | float] = Field(default={}, description="planner options of every request")

    @property
    def min_chunk_steps(self) -> int:
        """Steps that a chunk must have: those that pass while it is planned, then those that are executed."""
        return self.replan_at + self.executed

    @model_validator(mode="after")
    def _fit(self) -> Self:
        if self.replan_at > self.executed:
            raise ValueError(f"replan_at: expected at most executed = {self.executed}, got {self.replan_at}")
        if self.deadline_ms and self.deadline_plans:
            raise ValueError("deadline_ms and deadline_plans: expected one of them, got both")
        return self


class Phase(_Table):
    """A number of robots of each group for a time."""

    name: str = Field(pattern=r"^[a-z0-9-]{1,40}$")
    duration_s: Positive
    robots: Mapping[str, Count] = Field(min_length=1, description="group -> number of robots")
    ramp_s: Seconds = Field(default=0.0, description="time over which the robots start, evenly spread")
    load: Positive | None = Field(
        default=None,
        description="requests a second of all robots together, as a multiple of `load_of`; none: closed loop",
    )
    load_of: Literal["capacity", "floor"] = Field(
        default="capacity", description="which measured rate `load` multiplies"
    )
    measures: Measure | None = Field(default=None, description="what this phase measures for later phases and criteria")
    judged: bool = Field(default=False, description="whether the scenario's criteria apply")
    overlaps: bool = Field(default=False, description="begins while requests of the phase before are in flight")
    warm_up: bool = Field(default=False, description="left out of totals over phases")


class ServiceOptions(_Table):
    """Options of the service that the load test starts, when no running one is given."""

    settings: tuple[str, ...] = Field(default=(), description="KEY=VALUE of `wavserve serve --set`")
    slow_ms: Seconds = Field(default=0.0, description="added to every backend call")


class Thresholds(_Table):
    """The thresholds of `judge = "overload"`, and `slice_ms` for `judge = "mixed"`."""

    met: float = Field(default=0.95, description="least share of admitted plans that meet their deadline")
    goodput: float = Field(default=0.8, description="least rate of plans in time, over the measured capacity")
    refusal_ms: float = Field(default=20.0, description="most that a refusal's p99 may exceed that of /healthz")
    growth_mb_min: float = Field(default=1.0, description="most growth of resident memory, MB a minute")
    settled_s: Seconds = Field(default=20.0, description="start of a phase that the growth of memory leaves out")
    normal: float = Field(default=1.5, description="highest normal p50, over the lone robot's")
    normal_within_s: Seconds = Field(default=5.0, description="time after the overload until p50 must be normal again")
    slice_ms: float = Field(default=200.0, description="most that others may raise a group's p99: `batcher.slice_s`")


class Scenario(_Table):
    """A whole scenario."""

    about: str
    seed: int = Field(default=0, ge=0)
    nice: int = Field(
        default=0, ge=0, le=19, description="added to this process's niceness, so that it takes little from the service"
    )
    judge: Literal["nothing-lost", "overload", "mixed"] = "nothing-lost"
    aims: Thresholds = Thresholds()
    service: ServiceOptions = ServiceOptions()
    robots: Mapping[str, RobotGroup] = Field(min_length=1)
    phases: tuple[Phase, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _fit(self) -> Self:
        measured: set[Measure] = set()
        for index, phase in enumerate(self.phases):
            self._check(f"phases[{index}] ({phase.name})", phase, measured)
            shared = set(phase.robots) & set(self.phases[index - 1].robots) if index and phase.overlaps else set()
            if shared:  # a robot has one request in flight at a time
                raise ValueError(f"phases[{index}].robots: {min(shared)} still run in the phase it overlaps")
            if phase.measures is not None:
                measured.add(phase.measures)
        names = [phase.name for phase in self.phases]
        if len(set(names)) < len(names):
            raise ValueError(f"phases: expected distinct names, got {', '.join(names)}")
        judged = [phase.name for phase in self.phases if phase.judged]
        if self.judge == "mixed" and not (judged and "alone" in measured):
            raise ValueError("judge: mixed needs a judged phase, and a phase that measures alone")
        if self.judge == "overload" and not (judged and "recovery" in names and {"capacity", "lone"} <= measured):
            raise ValueError(
                "judge: overload needs a judged phase, one named recovery, and phases for capacity and lone"
            )
        return self

    def _check(self, where: str, phase: Phase, measured: set[Measure]) -> None:
        unknown = [name for name in phase.robots if name not in self.robots]
        if unknown:
            raise ValueError(f"{where}.robots: expected some of {', '.join(self.robots)}, got {unknown[0]!r}")
        if phase.load is not None and phase.load_of not in measured:
            raise ValueError(f"{where}.load: expected an earlier phase that measures {phase.load_of}, got none")
        relative = [name for name in phase.robots if self.robots[name].deadline_plans is not None]
        if relative and "lone" not in measured:
            raise ValueError(f"{where}: the deadlines of {relative[0]} need an earlier phase that measures lone")

    def lasting(self, duration_s: float) -> Scenario:
        """The same scenario with a longest phase of `duration_s`. Raises ScenarioError when that is not above 0."""
        if not duration_s > 0:
            raise ScenarioError(f"duration: expected seconds above 0, got {duration_s}")
        longest = max(self.phases, key=lambda phase: phase.duration_s)
        changed = longest.model_copy(update={"duration_s": duration_s})
        return self.model_copy(update={"phases": tuple(changed if p is longest else p for p in self.phases)})


def find(name: str) -> Path:
    """The file of a named scenario, or the path itself. Raises ScenarioError when there is no such file."""
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in FOLDER.glob("*.toml")))
        raise ScenarioError(f"scenario {name}: expected a .toml file or one of {known}, got no file {path}")
    return path


def load(path: Path) -> Scenario:
    """The scenario in a file. Raises ScenarioError when the file cannot be read or is wrong."""
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ScenarioError(f"{path}: expected readable TOML, got {error}") from error
    return parse(tree, str(path))


def parse(tree: Mapping[str, Any], source: str) -> Scenario:
    """The scenario in plain TOML values. Raises ScenarioError with the first wrong key."""
    try:
        return Scenario.model_validate_json(json.dumps(tree, default=str), strict=True)
    except ValidationError as error:
        raise ScenarioError(f"{source}: {_complaint(error.errors(include_url=False)[0])}") from None


def _complaint(problem: ErrorDetails) -> str:
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in problem["loc"]).lstrip(".")
    match problem["type"]:
        case "extra_forbidden":
            return f"{path}: unknown key{_near(str(problem['loc'][-1]))}"
        case "missing":
            return f"{path}: expected a value, got nothing"
        case "value_error":
            return f"{path}: {problem['ctx']['error']}".removeprefix(": ")
        case _:
            return f"{path}: expected {problem['msg'].removeprefix('Input should be ')}, got {problem['input']!r}"


def _near(key: str) -> str:
    known = [name for table in (Scenario, RobotGroup, Phase, ServiceOptions, Thresholds) for name in table.model_fields]
    near = difflib.get_close_matches(key, known, n=2)
    return f"; did you mean {' or '.join(near)}?" if near else ""
