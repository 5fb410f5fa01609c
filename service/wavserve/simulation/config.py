"""How an environment renders, and the variables that its process needs for that.

Knows no simulator.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from wavserve.core.errors import InvalidRequest

RENDERERS = {"osmesa": ("OSMesa", "libosmesa6"), "egl": ("EGL", "libegl1 libgl1-mesa-dri")}
"""Renderers that need no screen: the library's name, and the Debian packages that have it."""
MAX_SIZE = 1024


@dataclass(frozen=True, slots=True)
class SimulationConfig:
    """Of every picture of an environment. A policy is evaluated with the settings of its training."""

    size: int = 256
    """height and width, in pixels"""
    antialiasing: bool = True
    """off: rendering takes half the time, and a pixel differs by 1 of 255 on average"""
    renderer: str = "osmesa"

    def __post_init__(self) -> None:
        if not 1 <= self.size <= MAX_SIZE:
            raise InvalidRequest("size", f"1 to {MAX_SIZE} pixels", self.size)
        if self.renderer not in RENDERERS:
            raise InvalidRequest("MUJOCO_GL", " or ".join(RENDERERS), repr(self.renderer))


def renderer_of(variables: Mapping[str, str]) -> str:
    """The renderer that an environment's variables ask for; `osmesa` where they ask for none."""
    return variables.get("MUJOCO_GL") or "osmesa"


def process_variables(inherited: Mapping[str, str], config: SimulationConfig) -> dict[str, str]:
    """The environment of a simulator's process."""
    return {
        **inherited,
        "LIBERO_CONFIG_PATH": os.devnull,  # no file of the user replaces the package's scenes
        "MUJOCO_GL": config.renderer,
        "PYOPENGL_PLATFORM": config.renderer,
        "PYTHONHASHSEED": "0",  # the order of a set of names is the order of bodies in a scene
    }
