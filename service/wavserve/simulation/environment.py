"""Opens LIBERO environments, each in a process of its own. Imports nothing of the simulator."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict

from wavserve.simulation.config import SimulationConfig, process_variables
from wavserve.simulation.process import SimulatorProcess

# -P: a folder `libero` where the program runs is not the package
_PROGRAM = (sys.executable, "-P", "-m", "wavserve.simulation.main")


def open_environment(config: SimulationConfig, inherited: Mapping[str, str]) -> SimulatorProcess:
    """Starts a process and waits until it has imported the simulator. `inherited`: the environment of this process.

    Raises SimulationUnavailable when a package or a GL library is missing; SimulatorDied.
    """
    return SimulatorProcess([*_PROGRAM, json.dumps(asdict(config))], process_variables(inherited, config))
