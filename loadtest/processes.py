"""The processes of a running service as the kernel sees them: its Triton and its models."""

from __future__ import annotations

import psutil

from wavserve.core.verbs import MODELS


def below(pid: int) -> list[psutil.Process]:
    """Every living descendant of a process."""
    return [each for each in psutil.Process(pid).children(recursive=True) if alive(each)]


def alive(process: psutil.Process) -> bool:
    """Psutil also compares the start time, so a reused pid counts as another process."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
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


def models_of(pid: int) -> dict[str, psutil.Process]:
    """The process of each model among the descendants of `pid`; a model that is being loaded may be missing."""
    commands = {each: command_of(each) for each in below(pid)}
    return {model: each for model in MODELS for each, command in commands.items() if f"/{model}/1/model.py" in command}
