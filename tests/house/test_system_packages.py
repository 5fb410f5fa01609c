"""Debian packages stand in one file, which `make test-system` and `.ci/run` read through one script."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = "tests/missing_packages"


def listed() -> list[str]:
    text = (ROOT / "tests/system_packages.txt").read_text(encoding="utf-8")
    return re.sub(r"#.*", "", text).split()


@pytest.fixture
def dpkg_query(tmp_path: Path) -> Path:
    """A stand-in for dpkg's; the test writes what it does."""
    program = tmp_path / "dpkg-query"
    program.touch(mode=0o755)
    return program


def missing(dpkg_query: Path) -> list[str]:
    environment = os.environ | {"PATH": f"{dpkg_query.parent}:{os.environ['PATH']}"}
    ran = subprocess.run([ROOT / SCRIPT], env=environment, capture_output=True, text=True, check=True)
    return ran.stdout.split()


def test_the_list_names_each_package_once() -> None:
    assert "chromium" in listed()
    assert [name for name in listed() if not re.fullmatch(r"[a-z0-9][a-z0-9+.-]+", name)] == []
    assert len(set(listed())) == len(listed())


def test_the_target_and_ci_ask_the_script() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    [target] = re.findall(r"^test-system: .*\n(?:\t.*\n)+", makefile, re.MULTILINE)
    assert "tests/system_packages.txt" in target
    assert SCRIPT in target
    assert SCRIPT in (ROOT / ".ci/run").read_text(encoding="utf-8")


def test_what_is_not_installed_is_missing(dpkg_query: Path) -> None:
    dpkg_query.write_text("#!/bin/sh\nexit 1\n")
    assert missing(dpkg_query) == listed()
    dpkg_query.write_text("#!/bin/sh\necho config-files\n")
    assert missing(dpkg_query) == listed(), "a package that was removed leaves its configuration"
    dpkg_query.write_text("#!/bin/sh\necho installed\n")
    assert missing(dpkg_query) == []
