"""All benchmarks in one run (`make bench`), each in a process of its own; one JSON object at the end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCHMARKS = ("bench_plan.py", "bench_exact.py")


def main() -> None:
    figures = {}
    for script in BENCHMARKS:
        print(f"== {script}", file=sys.stderr)
        command = [sys.executable, str(Path(__file__).with_name(script))]
        ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        print(ran.stdout, end="", flush=True)
        told = json.loads(ran.stdout.splitlines()[-1])
        figures[Path(script).stem] = told
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
