"""Processes as the kernel sees them: a service's Triton and the processes of its models, found by parentage."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from wavserve.processes import Process
from wavserve.verbs import MODELS

PROC, SHM = Path("/proc"), Path("/dev/shm")
PATIENCE_S = 60.0


@dataclass(frozen=True)
class Running:
    process: Process
    parent: int
    command: str

    def send(self, signum: signal.Signals) -> None:
        assert self.process.alive
        os.kill(self.process.pid, signum)


def children(pid: int) -> list[Running]:
    return [running for running in _all() if running.parent == pid and running.process.alive]


def triton_of(service: int) -> Running:
    [server] = [child for child in children(service) if "tritonserver" in child.command]
    return server


def models_of(service: int) -> dict[str, Running]:
    """The process of each model; a model that is being loaded may be missing."""
    return models_below(triton_of(service).process.pid)


def models_below(triton: int) -> dict[str, Running]:
    """The process of each model of a Triton."""
    stubs = children(triton)
    return {model: stub for model in MODELS for stub in stubs if f"/{model}/" in stub.command}


def files_of(service: int) -> list[Path]:
    """What a service's Triton has in shared memory and among the temporary files."""
    folders = (SHM, Path(tempfile.gettempdir()))
    return [path for folder in folders for path in folder.glob("wavserve-*") if f"-{service}-" in path.name]


def until(condition: Callable[[], bool], what: str) -> None:
    """Waits, with an end to it."""
    ends = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < ends, f"not within {PATIENCE_S:.0f} s: {what}"
        time.sleep(0.02)


def _all() -> Iterator[Running]:
    for folder in PROC.iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            yield Running(Process(int(folder.name), int(fields[19])), int(fields[1]), command)
