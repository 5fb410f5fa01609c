"""Conventions as tests: the import law, docstrings, one place for printing and for the environment."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "service" / "wavserve"
GENERATED = PACKAGE / "pb"
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if GENERATED not in path.parents)
LINTER = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
PRINTING = {"cli.py", "commands/output.py"}


def name(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imports(module: ast.Module) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or ".")
    return found - {"__future__"}


def called(module: ast.Module) -> set[str]:
    return {node.func.id for node in ast.walk(module) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}


def attributes(module: ast.Module) -> set[str]:
    return {node.attr for node in ast.walk(module) if isinstance(node, ast.Attribute)}


def test_the_import_law_holds() -> None:
    """The linter runs in its own process, because it silences every logger in its process."""
    linter = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    done = subprocess.run([*linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_root_of_the_package_shows_the_request_path() -> None:
    """A folder for each name of the import law, in one line, and three files."""
    [law] = [each for each in LINTER["contracts"] if each["type"] == "layers"]
    names = {name.strip() for layer in law["layers"] for name in layer.split("|")}
    shown = {path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"}
    assert {name for name in shown if (PACKAGE / name).is_dir()} == names - {"cli"}
    assert shown - names == {"__init__.py", "cli.py", "py.typed"}


def test_the_package_itself_imports_nothing() -> None:
    assert imports(tree(PACKAGE / "__init__.py")) == set()


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_module_has_a_docstring_and_keeps_the_rules(path: Path) -> None:
    module = tree(path)
    text = path.read_text(encoding="utf-8")
    assert not text.strip() or ast.get_docstring(module), (
        "a module docstring says the role, and what the module may not know"
    )
    assert ("print" in called(module)) <= (name(path) in PRINTING), "only the command line prints"
    assert bool(re.search(r"\bos\.environ|getenv|putenv|import environ\b", text)) <= (
        name(path) == "app/environment.py"
    ), "only app/environment.py uses the environment"
    assert not imports(module) & {"pickle", "pdb", "dill", "shelve"}


def test_every_pinned_requirement_is_in_the_constraints() -> None:
    pins = {line.split("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    wanted = {re.split(r"[\[<>=]", requirement)[0].lower() for group in groups for requirement in group}
    assert {item for item in wanted if not item.startswith("wavserve")} <= pins


def test_the_readmes_request_is_the_first_recorded_frame() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    [example] = re.findall(r"'request=(\{.*?\});type", readme, re.DOTALL)
    [flag] = re.findall(r"--state=(\S+)", readme)
    request = json.loads(example)
    episode = json.loads((ROOT / "examples/libero_object_0/episode.json").read_text(encoding="utf-8"))
    frame = episode["frames"][0]
    assert (request["instruction"], request["state"]) == (episode["instruction"], frame["state"])
    assert [float(number) for number in flag.split(",")] == frame["state"]
    for camera in ("agentview", "wrist"):
        assert f"{camera}=@examples/libero_object_0/{frame[camera]}" in readme
