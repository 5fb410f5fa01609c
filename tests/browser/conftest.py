"""The pages the project makes, each made once, and a visit to each on every screen."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.looks import Look, Scheme, Screen, chromium, look
from tests.clients.libero.runs import example_render, recorded_run
from tests.clients.piper.logs import example_log
from tests.service.rig import Server, start
from wavserve.clients.libero.report.write import write_report

expect.set_options(timeout=60_000)  # a busy machine draws late
EVIL_NAME = "<img src=x onerror=console.error('run')>"
"""of a robot; a page that runs it logs an error"""
ROOT = Path(__file__).parents[2]
SHOTS = os.environ.get("SHOTS")
"""A folder for screenshots, if they are wanted: `make test-system SHOTS=FOLDER`."""
Name = Literal["demo", "loadtest", "piper", "libero"]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="session")
def pages(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> dict[Name, Path]:
    """Needs the browser, so that a machine without one fails before the pages are made."""
    folder = tmp_path_factory.mktemp("pages")
    service = ["--set=backend.kind=local", "--set=backend.compile=off"]
    service += ["--preset=tiny", f"--set=bundle.root={folder / 'bundles'}"]
    results = folder / "results.json"
    # A busy machine may miss a criterion (exit code 1). The page says so, and is a page all the same.
    run("loadtest.load", "smoke", "--duration=4", f"--out={results}", *service, codes=(0, 1))
    run("examples.demo", f"--out={folder}", *service)
    piper = folder / "piper.html"
    run("wavserve.cli", "piper", "report", str(example_log(folder / "piper.jsonl")), f"--out={piper}")
    return {
        "demo": folder / "index.html",
        "loadtest": results.with_suffix(".html"),
        "piper": piper,
        "libero": write_report(*recorded_run(folder / "libero"), example_render, num_videos=2),
    }


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real service with the models in its own process."""
    running = start(tmp_path_factory.mktemp("gateway"), "local", "--set", "backend.threads=2")
    yield running
    running.stop()


def run(module: str, *arguments: str, codes: tuple[int, ...] = (0,)) -> None:
    command = [sys.executable, "-m", module, *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=300)
    assert ran.returncode in codes, ran.stdout + ran.stderr


@pytest.fixture(scope="session", params=get_args(Name))
def name(request: pytest.FixtureRequest) -> Name:
    chosen: Name = request.param
    return chosen


@pytest.fixture(scope="session", params=get_args(Screen))
def screen(request: pytest.FixtureRequest) -> Screen:
    chosen: Screen = request.param
    return chosen


@pytest.fixture(scope="session", params=get_args(Scheme))
def scheme(request: pytest.FixtureRequest) -> Scheme:
    chosen: Scheme = request.param
    return chosen


@pytest.fixture(scope="session")
def seen(browser: Browser, pages: dict[Name, Path], name: Name, screen: Screen, scheme: Scheme) -> Look:
    return look(browser, pages[name], screen, scheme, shot_of(f"{name}-{screen}-{scheme}"))


def shot_of(title: str) -> Path | None:
    if not SHOTS:
        return None
    return ROOT / SHOTS / f"{title}.png"  # playwright makes the folder
