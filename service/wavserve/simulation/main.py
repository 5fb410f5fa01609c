"""The program of a simulator's process: `python -P -m wavserve.simulation.main CONFIG`, with CONFIG in JSON."""

from __future__ import annotations

import json
import sys

from wavserve.core.simulation import Environment
from wavserve.simulation.config import SimulationConfig
from wavserve.simulation.requirements import check_packages, check_renderer
from wavserve.simulation.worker import serve


def opened() -> Environment:
    config = SimulationConfig(**json.loads(sys.argv[1]))
    check_packages()
    check_renderer(config.renderer)
    from wavserve.simulation.libero import LiberoEnvironment

    return LiberoEnvironment(config)


if __name__ == "__main__":
    serve(opened)
