"""A service's processes and files as the kernel sees them: its Triton, its models, and what they leave."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from wavserve.backends.triton.server import PROGRAMS
from wavserve.core.verbs import MODELS
from wavserve.system.processes import Process, commands_with

PATIENCE_S = 300.0


def below(pid: int) -> list[psutil.Process]:
    """Every living descendant of a process."""
    return [each for each in psutil.Process(pid).children(recursive=True) if alive(each)]


def alive(process: psutil.Process) -> bool:
    """Psutil also compares the start time, so a reused pid counts as another process."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def command_of(process: psutil.Process) -> str:
    """Its arguments in one line; empty when it has exited, which may happen at any moment."""
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # also raised for a zombie
        return ""


def triton_of(service: int) -> psutil.Process:
    [server] = [each for each in below(service) if command_of(each).partition(" ")[0].endswith("/tritonserver")]
    return server


def tritons_of(service: int) -> set[Process]:
    """The server and model processes of a service, which may itself have exited."""
    return {each for each, command in commands_with("wavserve-", PROGRAMS).items() if f"-{service}-" in command}


def models_of(pid: int) -> dict[str, psutil.Process]:
    """The process of each model among the descendants of `pid`; a model that is being loaded may be missing."""
    commands = {each: command_of(each) for each in below(pid)}
    return {model: each for model in MODELS for each, command in commands.items() if f"/{model}/1/model.py" in command}


def files_of(service: int) -> list[Path]:
    """The files of a service's Triton in shared memory and in the temporary folder."""
    folders = (Path("/dev/shm"), Path(tempfile.gettempdir()))
    return [path for folder in folders for path in folder.glob("wavserve-*") if f"-{service}-" in path.name]


def until(condition: Callable[[], bool], what: str, within_s: float = PATIENCE_S) -> None:
    """Waits until the condition holds. Fails after `within_s`."""
    ends = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < ends, f"not within {within_s:.0f} s: {what}"
        time.sleep(0.02)
