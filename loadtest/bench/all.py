"""Runs all benchmarks, each in its own process, and prints one JSON object (`make bench`).

The object names the machine and the versions, so that it can be kept as a file in `docs/benchmarks/`. It holds the
output of each benchmark, and one list of all aims.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from loadtest.aims import Aim, prefixed

BENCHMARKS = ("plan", "on_triton", "exact", "rtc", "serving", "control", "ops")
PACKAGES = ("wavserve", "torch", "numpy", "grpcio", "tritonclient", "nvidia-pytriton", "fastapi", "uvicorn")


def main() -> None:
    print(json.dumps(report({name: output(name) for name in BENCHMARKS})))


def output(name: str) -> dict[str, Any]:
    """Runs a benchmark. Returns the JSON object of its last line."""
    print(f"== {name}", file=sys.stderr)
    command = [sys.executable, "-m", f"loadtest.bench.{name}"]
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


def report(outputs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The JSON object of the last line: command, machine, versions, the benchmarks' outputs, and all aims."""
    return {
        "command": "make bench",
        "machine": {"processor": processor(), "cores": os.cpu_count(), "system": platform.platform(terse=True)},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        **outputs,
        "aims": aims_of(outputs),
    }


def aims_of(outputs: Mapping[str, Mapping[str, Any]]) -> list[Aim]:
    """The aims of all benchmarks. The benchmark precedes the name of each aim."""
    return [aim for name, found in outputs.items() for aim in prefixed(name, found["aims"])]


def processor() -> str:
    """The processor's model name where Linux reports it; else its architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    main()
