"""What both worlds show: pictures that no two steps share, and a state that the preset `tiny` accepts."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import numpy as np

CAMERAS = ("agentview", "wrist")
SIZE = 128
STATE = np.array([-0.15, 0.0, 0.25, 3.14, 0.0, -0.09, 0.04, -0.04], np.float32)
ACTION_DIM = 7
TASK = "pick up the alphabet soup and place it in the basket"


def pictures(seed: int, step: int) -> dict[str, np.ndarray]:
    """Noise, `[128, 128, 3]` for each camera."""
    draw = np.random.default_rng([seed, step])
    return {name: draw.integers(0, 256, (SIZE, SIZE, 3), np.uint8) for name in CAMERAS}


class Log:
    """A file of its own in a folder, one JSON value a line."""

    def __init__(self, folder: str) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        self._path = Path(folder) / f"{uuid.uuid4().hex}.jsonl"

    def write(self, value: Any) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(value) + "\n")
