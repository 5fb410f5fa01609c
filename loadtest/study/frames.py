"""Imagined frames against true ones (the paper's figure 9): each plan's imagined future, and what the cameras saw then.

The robot executes whole chunks, so that what was imagined is what was done. Knows no statistics beyond means.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from loadtest.study.plan import Study
from loadtest.study.runs import StudyError
from loadtest.study.scenes import Witness, start_of
from wavserve.clients.libero.episode import EpisodeConfig, run_episode
from wavserve.clients.libero.plan_source import Planner, SourceConfig, UnarySource
from wavserve.core.files import write_whole
from wavserve.core.messages import ActionChunk, Observation, PolicyInfo
from wavserve.core.resize import Pixels
from wavserve.core.simulation import Environment, PrivilegedEnvironment
from wavserve.core.spec import PolicySpec
from wavserve.training.demos.protocol import RecordingConfig

_ORIENTATION = "rotated_180"
"""of the pictures of demonstrations, which the cameras' pictures are held in"""
_NUM_SHOWN = 6
"""plans in the picture"""
_DARKEST = 1e-6
"""Mean squared error below which a PSNR says nothing."""


@dataclass(frozen=True, slots=True)
class Likeness:
    """How near pictures come to the true ones at the end of a chunk, as PSNR in dB."""

    camera: str
    imagined_db: float
    copied_db: float
    """of the picture that the plan saw: what imagining nothing reaches"""
    num: int
    """plans"""


@dataclass(frozen=True, slots=True, eq=False)
class Future:
    """A plan's future, by camera: what it saw, what it imagined at the end of its chunk, what came."""

    seen: Mapping[str, Pixels]
    imagined: Mapping[str, Pixels]
    true: Mapping[str, Pixels]


class Imagining:
    """A planner that asks for one chunk of imagined frames with every plan, and keeps the last frame of each."""

    def __init__(self, planner: Planner) -> None:
        self._planner = planner
        self.frames: dict[int, dict[str, Pixels]] = {}
        """by control step and camera"""

    def plan(self, observation: Observation) -> ActionChunk:
        """As `Planner.plan`."""
        chunk = self._planner.plan(replace(observation, imagine_chunks=1))
        self.frames[chunk.first_control_step] = {
            camera: np.asarray(Image.open(io.BytesIO(frames[-1].data))) for camera, frames in chunk.imagined.items()
        }
        return chunk

    def end(self, session_id: str) -> None:
        """As `Planner.end`."""
        self._planner.end(session_id)

    def policy(self) -> PolicyInfo:
        """As `Planner.policy`."""
        return self._planner.policy()

    def close(self) -> None:
        """As `Planner.close`."""
        self._planner.close()


def check_comparable(spec: PolicySpec) -> None:
    """Raises StudyError for a policy whose imagined frames and returns cannot be held against the cameras' pictures."""
    size, latent = RecordingConfig().size, spec.latent
    for camera in spec.cameras:
        seen = (camera.height, camera.width, camera.orientation)
        if seen != (size, size, _ORIENTATION):
            raise StudyError(f"camera {camera.name}: expected {size} x {size}, {_ORIENTATION}, got {seen}")
    ahead = round(latent.temporal_ratio * spec.control_hz / latent.frame_rate)
    if ahead != spec.chunk:
        raise StudyError(f"future: expected to lie as far ahead as the chunk, {spec.chunk} steps, got {ahead}")


def imagined(
    study: Study, environment: PrivilegedEnvironment, planner: Planner, rotation: int, told: Callable[[str], None]
) -> Iterator[Future]:
    """The futures of one episode of every task, on the starts of the study's scenes."""
    tasks = environment.tasks(study.suite)
    for index in study.tasks or range(len(tasks)):
        told(f"imagined frames: task {index}")
        eyes, witness = Imagining(planner), Witness(environment)
        start = start_of(study.values, tasks[index], 0)
        options = {"mode": "off", "fixed_shapes": True}
        with closing(UnarySource(eyes, planner.policy(), SourceConfig(rotation=rotation, options=options))) as source:
            config = EpisodeConfig(replan_steps=planner.policy().horizon, seed=start.seed)
            run_episode(cast(Environment, witness), source, start, config)
        yield from _futures(eyes.frames, witness.pictures(config.num_steps_wait), planner.policy().horizon)


def _futures(
    frames: Mapping[int, Mapping[str, Pixels]], seen: Mapping[int, Mapping[str, Pixels]], horizon: int
) -> Iterator[Future]:
    """Of each plan whose chunk was executed to its end."""
    for step, each in frames.items():
        if step + horizon in seen:
            yield Future(seen[step], each, seen[step + horizon])


def likenesses(futures: Sequence[Future]) -> list[Likeness]:
    """By camera: means over all plans."""
    cameras = list(futures[0].true) if futures else []
    return [
        Likeness(
            camera,
            float(np.mean([psnr(each.imagined[camera], each.true[camera]) for each in futures])),
            float(np.mean([psnr(each.seen[camera], each.true[camera]) for each in futures])),
            len(futures),
        )
        for camera in cameras
    ]


def psnr(picture: Pixels, truth: Pixels) -> float:
    """In dB, of pixels in [0, 1]; 60 for equal pictures."""
    error = float(np.mean((picture / 255.0 - truth / 255.0) ** 2))
    return -10.0 * float(np.log10(max(error, _DARKEST)))


def write_sheet(futures: Sequence[Future], file: Path) -> None:
    """A row for each of a few plans: by camera what it saw, what it imagined and what came."""
    chosen = futures[:: max(len(futures) // _NUM_SHOWN, 1)][:_NUM_SHOWN]
    rows: list[NDArray[Any]] = []
    for each in chosen:
        views = [[kind[camera] for kind in (each.seen, each.imagined, each.true)] for camera in each.true]
        rows.append(np.concatenate([picture for view in views for picture in view], axis=1))
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(rows)).save(buffer, format="PNG")
    write_whole(file, buffer.getvalue())


def likenesses_on_file(file: Path, futures: Callable[[], Iterator[Future]]) -> list[Likeness]:
    """The likenesses on file, or of the futures, which then go on file with their picture beside it."""
    if not file.exists():
        found = list(futures())
        if found:
            write_sheet(found, file.with_suffix(".png"))
        write_whole(file, json.dumps([asdict(each) for each in likenesses(found)], indent=2).encode())
    return [Likeness(**each) for each in json.loads(file.read_bytes())]
