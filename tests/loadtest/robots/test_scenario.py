"""Scenario files: every shipped file loads. A wrong file raises an error that names the wrong key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from loadtest.robots import scenario
from loadtest.robots.scenario import ScenarioError

NAMES = {"smoke", "steady", "burst", "soak", "overload", "slow-backend", "mixed-k", "ramp"}


def tree(**changes: Any) -> dict[str, Any]:
    whole: dict[str, Any] = {
        "about": "a test",
        "robots": {"arms": {"edge": "grpc"}, "slow": {"edge": "http-json"}},
        "phases": [{"name": "one", "duration_s": 5, "robots": {"arms": 2}}],
    }
    return whole | changes


def phase(**changes: Any) -> dict[str, Any]:
    return {"name": "two", "duration_s": 5, "robots": {"arms": 1}} | changes


def test_every_scenario_loads() -> None:
    found = {file.stem: scenario.load(file) for file in scenario.FOLDER.glob("*.toml")}
    assert found.keys() == NAMES
    assert found["overload"].judge == "overload"
    assert found["slow-backend"].service.slow_ms > 0
    planners = [group.planner for group in found["mixed-k"].robots.values()]
    assert planners == [{"mode": "off"}, {"num_iterations": 5}]
    edges = {group.edge for group in found["smoke"].robots.values()}
    assert edges == {"http-json", "http-multipart", "grpc"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"phase": []}, r"f: phase: unknown key; did you mean phases"),
        (
            {"robots": {"arms": {"edge": "grpc", "contol_hz": 5}}},
            r"robots.arms.contol_hz: unknown key; did you mean con",
        ),
        ({"robots": {"arms": {"edge": "udp"}}}, r"robots.arms.edge: expected 'http-json', .*, got 'udp'"),
        ({"robots": {"arms": {"edge": "grpc", "control_hz": "5"}}}, r"robots.arms.control_hz: expected .*, got '5'"),
        (
            {"robots": {"arms": {"edge": "grpc", "control_hz": 0}}},
            r"robots.arms.control_hz: expected greater than 0, got 0",
        ),
        ({"robots": {"arms": {"edge": "grpc", "replan_at": 9}}}, r"replan_at: expected at most executed = 8, got 9"),
        ({"robots": {"arms": {"edge": "grpc", "deadline_ms": 5, "deadline_plans": 2.0}}}, r"expected one of them"),
        (
            {"phases": [phase(robots={"legs": 1})]},
            r"phases\[0\] \(two\).robots: expected some of arms, slow, got 'legs'",
        ),
        ({"phases": [phase(), phase()]}, r"phases: expected distinct names, got two, two"),
        ({"phases": [phase(load=3.0)]}, r"load: expected an earlier phase that measures capacity, got none"),
        ({"phases": [phase(), phase(name="more", overlaps=True)]}, r"arms still run in the phase it overlaps"),
        (
            {"robots": {"arms": {"edge": "grpc", "deadline_plans": 4.0}}},
            r"arms need an earlier phase that measures lone",
        ),
        ({"judge": "overload"}, r"judge: overload needs a judged phase"),
        ({"judge": "mixed"}, r"judge: mixed needs a judged phase, and a phase that measures alone"),
        ({"about": None}, r"about: expected a valid string, got None"),
    ],
)
def test_a_wrong_scenario_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ScenarioError, match=words):
        scenario.parse(tree(**changes), "f")


def test_a_missing_or_broken_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ScenarioError, match=r"scenario nothing: expected a .toml file or one of burst, mixed-k, overload"
    ):
        scenario.find("nothing")
    broken = tmp_path / "broken.toml"
    broken.write_text("about = ")
    with pytest.raises(ScenarioError, match=r"broken.toml: expected readable TOML"):
        scenario.load(scenario.find(str(broken)))


def test_the_longest_phase_can_be_made_shorter() -> None:
    soak = scenario.load(scenario.find("soak")).lasting(60.0)
    assert [(phase.name, phase.duration_s) for phase in soak.phases] == [("warm-up", 30.0), ("soak", 60.0)]
    with pytest.raises(ScenarioError, match="duration: expected seconds above 0, got 0"):
        soak.lasting(0.0)
