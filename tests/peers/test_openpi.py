"""The unmodified openpi-client, in an environment of its own, against a real service.

`make test-peers` makes the environment: the client wants another numpy than the service has.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.service.rig import Server, start

pytestmark = pytest.mark.peers

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-openpi" / "bin" / "python"
ROBOT = Path(__file__).with_name("openpi_robot.py")
TIMEOUT_S = 300
SETTINGS = ("compat.allow_untrained=true", "compat.executed_steps=10", "compat.instruction=fold the shirt")


def serve(tmp_path_factory: pytest.TempPathFactory, preset: str) -> Iterator[Server]:
    if not PYTHON.exists():
        pytest.skip("no environment with openpi-client: make test-peers makes it")
    flags = [part for setting in SETTINGS for part in ("--set", setting)]
    running = start(tmp_path_factory.mktemp(preset), "local", "--preset", preset, *flags)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def piper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from serve(tmp_path_factory, "tiny-piper")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from serve(tmp_path_factory, "tiny")


def command(server: Server, *words: str) -> list[str]:
    return [str(PYTHON), str(ROBOT), server.http.replace("http", "ws"), *words]


def run(server: Server, *words: str) -> None:
    done = subprocess.run(command(server, *words), capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr[-2_000:]


@pytest.mark.parametrize("scenario", ["broker", "errors", "api_key"])
@pytest.mark.parametrize("dialect", ["aloha", "wav"])
def test_a_robot_with_two_arms(dialect: str, scenario: str, piper: Server) -> None:
    run(piper, dialect, scenario)


@pytest.mark.parametrize("scenario", ["broker", "errors", "api_key"])
def test_liberos_example(scenario: str, tiny: Server) -> None:
    run(tiny, "libero", scenario)


def test_a_service_that_starts_again_takes_a_new_connection(tiny: Server) -> None:
    """The last test of the module: it stops the service that the others use."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command(tiny, "libero", "restart"), stdin=pipe, stdout=pipe, text=True, bufsize=1) as robot:
        assert robot.stdin is not None
        assert robot.stdout is not None
        assert robot.stdout.readline() == "connected\n"
        tiny.stop()
        robot.stdin.write("stopped\n")
        assert robot.stdout.readline() == "refused\n"
        again = replace(tiny, process=subprocess.Popen(tiny.process.args, stdout=subprocess.DEVNULL))
        try:
            wait_until_ready(again)
            robot.stdin.write("started\n")
            assert robot.wait(TIMEOUT_S) == 0
        finally:
            again.stop()


def wait_until_ready(server: Server) -> None:
    end = time.monotonic() + TIMEOUT_S
    while not server.is_ready():
        assert server.process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.2)
