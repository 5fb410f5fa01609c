"""All benchmarks in one run (`make bench`), each in a process of its own; one JSON object at the end.

The object also says where it was measured, so that it can be kept as a file in `docs/benchmarks/`.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

BENCHMARKS = ("plan", "on_triton", "exact", "serving")
PACKAGES = ("wavserve", "torch", "numpy", "grpcio", "tritonclient", "nvidia-pytriton", "fastapi", "uvicorn")


def main() -> None:
    figures: dict[str, object] = {
        "command": "make bench",
        "machine": {"processor": processor(), "cores": os.cpu_count(), "system": platform.platform(terse=True)},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
    }
    for script in BENCHMARKS:
        print(f"== {script}", file=sys.stderr)
        command = [sys.executable, "-m", f"loadtest.bench.{script}"]
        ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        figures[Path(script).stem] = json.loads(ran.stdout.splitlines()[-1])
    print(json.dumps(figures))


def processor() -> str:
    """The model's name where Linux tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    main()
