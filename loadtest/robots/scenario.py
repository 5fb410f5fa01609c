"""A scenario: its robots and their behaviour, its phases, and its criteria. It is read from TOML, checked and frozen.

An unknown key or a wrong value raises ScenarioError with file, key, expected and actual. This module does not know how
robots or services work.
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
Measure = Literal["capacity", "no-planning", "lone", "alone"]
"""What a phase measures:

- `capacity`: plans a second at full load
- `no-planning`: plans a second at full load without planning (K=0)
- `lone`: the latency of a single robot
- `alone`: the latency of its groups, for comparison with a judged phase
"""
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class ScenarioError(ValueError):
    """A scenario that cannot be run. The message names the place and the reason."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RobotGroup(_Table):
    """Robots that behave alike."""

    edge: Edge = Field(description="transport to the service")
    control_hz: Positive = Field(default=20.0, description="steps executed a second")
    executed: int = Field(default=8, ge=0, description="steps executed of each chunk; 0: request the next one at once")
    replan_at: int = Field(default=4, ge=0, description="remaining steps at which the robot requests the next chunk")
    think_s: Seconds = Field(default=0.0, description="pause before every request")
    jitter_s: Seconds = Field(default=0.0, description="maximum random time added to every pause")
    honours_retry_after: bool = Field(default=True, description="whether to wait for the retry time of a refusal")
    deadline_ms: Count | None = Field(default=None, description="deadline of every request")
    deadline_plans: Positive | None = Field(
        default=None, description="the deadline as a multiple of the lone robot's plan, which an earlier phase measures"
    )
    planner: Mapping[str, str | bool | int | float] = Field(default={}, description="planner options of every request")

    @property
    def min_chunk_steps(self) -> int:
        """Minimum length of a chunk: the steps that pass while it is planned, then the steps that are executed."""
        return self.replan_at + self.executed

    @model_validator(mode="after")
    def _fit(self) -> Self:
        if self.replan_at > self.executed:
            raise ValueError(f"replan_at: expected at most executed = {self.executed}, got {self.replan_at}")
        if self.deadline_ms and self.deadline_plans:
            raise ValueError("deadline_ms and deadline_plans: expected one of them, got both")
        return self


class Phase(_Table):
    """A part of the run, with a fixed number of robots of each group."""

    name: str = Field(pattern=r"^[a-z0-9-]{1,40}$", description="name of the phase in results and plots")
    duration_s: Positive = Field(description="length of the phase")
    robots: Mapping[str, Count] = Field(min_length=1, description="group -> number of robots")
    ramp_s: Seconds = Field(default=0.0, description="time over which the starts of the robots are spread")
    load: Positive | None = Field(
        default=None,
        description="requests a second of all robots together, as a multiple of the rate `load_of`; none: closed loop",
    )
    load_of: Literal["capacity", "no-planning"] = Field(
        default="capacity", description="measured rate that `load` multiplies"
    )
    measures: Measure | None = Field(default=None, description="what this phase measures for later phases and criteria")
    judged: bool = Field(default=False, description="whether the criteria of `judge` apply to this phase")
    overlaps: bool = Field(default=False, description="whether it begins before the previous phase's requests end")
    warm_up: bool = Field(default=False, description="whether totals over phases exclude this phase")


class ServiceOptions(_Table):
    """Options of the service that the load test starts. A running service (`--url`) accepts none."""

    settings: tuple[str, ...] = Field(default=(), description="KEY=VALUE arguments of `wavserve serve --set`")
    slow_ms: Seconds = Field(default=0.0, description="milliseconds added to every backend call")


class Thresholds(_Table):
    """Thresholds of the criteria: `slice_ms` for `judge = "mixed"`, the others for `judge = "overload"`."""

    met: float = Field(default=0.95, description="minimum share of admitted plans that meet their deadline")
    goodput: float = Field(default=0.8, description="minimum rate of plans in time, as a share of capacity")
    refusal_ms: float = Field(default=20.0, description="maximum p99 of refusals above the p99 of /healthz")
    growth_mb_min: float = Field(default=1.0, description="maximum growth of resident memory, in MB a minute")
    settled_s: Seconds = Field(default=20.0, description="initial seconds excluded from the memory slope")
    normal: float = Field(default=1.5, description="maximum p50 after recovery, as a multiple of the lone robot's p50")
    normal_within_s: Seconds = Field(default=5.0, description="maximum time from the overload's end to a normal p50")
    slice_ms: float = Field(default=200.0, description="maximum rise of a group's p99; `batcher.slice_s` in ms")


class Scenario(_Table):
    """A whole scenario."""

    about: str = Field(description="one or two sentences about the scenario, shown on the page")
    seed: int = Field(default=0, ge=0, description="seed of the first robot; each further robot has the next number")
    nice: int = Field(
        default=0, ge=0, le=19, description="niceness of the load test, so that the service gets more processor time"
    )
    judge: Literal["nothing-lost", "overload", "mixed"] = Field(
        default="nothing-lost", description="criteria: those of every run, or also those of `overload` or `mixed`"
    )
    aims: Thresholds = Field(default=Thresholds(), description="thresholds of the criteria")
    service: ServiceOptions = Field(default=ServiceOptions(), description="options of the service")
    robots: Mapping[str, RobotGroup] = Field(min_length=1, description="name of a group -> its robots' behaviour")
    phases: tuple[Phase, ...] = Field(min_length=1, description="the phases, in order")

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
        """The same scenario with its longest phase changed to `duration_s`.

        Raises ScenarioError when `duration_s` is not above 0.
        """
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
