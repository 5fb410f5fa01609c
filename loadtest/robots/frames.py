"""The observations of the simulated robots: recorded LIBERO frames as PNG files, in a loop."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from wavserve.core.messages import EncodedImage, Observation

EPISODE = Path(__file__).parents[2] / "examples" / "libero_object_0"
CAMERAS = ("agentview", "wrist")


@dataclass(frozen=True, slots=True)
class Frames:
    """One episode's observations, without the fields of a session."""

    observations: tuple[Observation, ...]

    @classmethod
    def recorded(cls, folder: Path = EPISODE) -> Frames:
        episode = json.loads((folder / "episode.json").read_text(encoding="utf-8"))
        observations = []
        for frame in episode["frames"]:
            images = (EncodedImage(name, "png", (folder / frame[name]).read_bytes()) for name in CAMERAS)
            observations.append(
                Observation(images=tuple(images), state=tuple(frame["state"]), instruction=episode["instruction"])
            )
        return cls(tuple(observations))

    def at(self, number: int) -> Observation:
        """The observation with this number. After the last one the first one follows."""
        return self.observations[number % len(self.observations)]
