"""What the simulated robots see: the recorded LIBERO frames, over and over.

Called by the robot. Pictures travel as the PNG files they are.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from wavserve.core.messages import EncodedImage, Observation

EPISODE = Path(__file__).parents[2] / "examples" / "libero_object_0"
CAMERAS = ("agentview", "wrist")


@dataclass(frozen=True, slots=True)
class Frames:
    """One episode: observations without anything of a session."""

    observations: tuple[Observation, ...]

    @classmethod
    def recorded(cls, folder: Path = EPISODE) -> Frames:
        episode = json.loads((folder / "episode.json").read_text(encoding="utf-8"))
        seen = []
        for frame in episode["frames"]:
            pictures = (EncodedImage(name, "png", (folder / frame[name]).read_bytes()) for name in CAMERAS)
            seen.append(
                Observation(images=tuple(pictures), state=tuple(frame["state"]), instruction=episode["instruction"])
            )
        return cls(tuple(seen))

    def at(self, number: int) -> Observation:
        """The `number`-th observation; after the last comes the first."""
        return self.observations[number % len(self.observations)]
