"""Frames of an episode's video: what the cameras see, and below it the plan: its value and the motion of its chunk.

Draws with Pillow. Knows no file and no simulator.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from wavserve.clients.libero.report.recording import Recording, Shot
from wavserve.core.resize import Pixels

SIZE = (768, 576)
"""width and height of a frame, in pixels"""
_VIEW, _TITLE_HEIGHT, _PANEL_WIDTH, _PAD = 384, 28, 256, 16
_PANEL_HEIGHT = SIZE[1] - _TITLE_HEIGHT - _VIEW
_PLOT_TOP = 28
_PLOT_SIZE = np.array([_PANEL_WIDTH - 2 * _PAD, _PANEL_HEIGHT - _PLOT_TOP - _PAD])
_FINE = 2
"""lines are drawn at this scale, so that they are smooth"""
_FIXED_CAMERAS = ("agentview",)
_BACK, _INK, _FAINT, _RULE, _BAD = (18, 22, 28), (229, 233, 239), (154, 164, 178), (44, 52, 64), (248, 113, 113)
_DONE, _PLANNED = (122, 162, 255), (251, 191, 36)

Points = NDArray[np.float64]
"""`[n, 2]`"""


@dataclass(frozen=True, slots=True, eq=False)
class Film:
    """A recorded episode and its pictures."""

    title: str
    untrained: bool
    recording: Recording
    steps: Sequence[int]
    """the control step of each shot"""
    shots: Sequence[Shot]


def frames(film: Film) -> Iterator[Pixels]:
    """A picture `[height, width, 3]` of SIZE for each shot."""
    track = _Track.of(film)
    panels = _panels(film, track)
    font, small = ImageFont.load_default(15), ImageFont.load_default(12 * _FINE)
    for index, (step, shot) in enumerate(zip(film.steps, film.shots, strict=True)):
        frame = Image.new("RGB", SIZE, _BACK)
        draw = ImageDraw.Draw(frame)
        draw.text((_PAD, 5), film.title, _INK, font)
        draw.text((SIZE[0] - _PAD, 5), f"step {step}", _INK, font, anchor="ra")
        if film.untrained:
            draw.text((SIZE[0] - 90, 5), "UNTRAINED", _BAD, font, anchor="ra")
        for place, camera in enumerate(list(shot.images)[:2]):
            frame.paste(_view(shot, camera, track.at(index)), (place * _VIEW, _TITLE_HEIGHT))
        below = Image.new("RGB", (SIZE[0] * _FINE, _PANEL_HEIGHT * _FINE), _BACK)
        for place, panel in enumerate(panels):
            panel.draw(ImageDraw.Draw(below), place * _PANEL_WIDTH, small, index)
        frame.paste(below.resize((SIZE[0], _PANEL_HEIGHT), Image.Resampling.BOX), (0, _TITLE_HEIGHT + _VIEW))
        yield np.asarray(frame)


def planned_paths(film: Film) -> list[NDArray[np.float64]]:
    """`[T + 1, 3]` of each chunk: where the gripper would go from the plan's observation on, in m.

    A command is an offset that the controller follows in part. How far is taken from the episode itself: it is the
    scale that explains the episode's motion best.
    """
    recording, steps = film.recording, np.array(film.steps)
    positions = np.array([shot.position for shot in film.shots])
    commands = [_summed(chunk) for chunk in recording.chunks]
    scale = _scale(recording, steps, positions, commands)
    begins = (positions[np.argmin(np.abs(steps - step))] for step in recording.plan_steps)
    return [begin + scale * command for begin, command in zip(begins, commands, strict=True)]


def _summed(chunk: NDArray[Any]) -> NDArray[np.float64]:
    """`[T + 1, 3]`: the offset of the position that a chunk's first commands ask for, together."""
    return np.vstack([np.zeros(3), np.cumsum(chunk[:, :3], axis=0, dtype=np.float64)])


def _scale(
    recording: Recording, steps: NDArray[np.int64], positions: NDArray[np.float64], commands: Sequence[Points]
) -> float:
    """Metres per unit of a command: least squares over the motions between two shots of one chunk."""
    moved = commanded = 0.0
    for i, (step, after) in enumerate(pairwise(steps)):
        plan = recording.plan_at(int(step))
        if plan is not None and after - recording.plan_steps[plan] < len(commands[plan]):
            begin = recording.plan_steps[plan]
            command = commands[plan][after - begin] - commands[plan][step - begin]
            moved += float(command @ (positions[i + 1] - positions[i]))
            commanded += float(command @ command)
    return moved / commanded if commanded else 0.0


@dataclass(frozen=True, slots=True, eq=False)
class _Panel:
    """A plot below the pictures."""

    title: str
    done: Points
    """what has happened: a line through these"""
    num_done: Sequence[int]
    """how many of them by each shot"""
    planned: Sequence[Points]
    """what is planned at each shot"""
    low: Points
    span: Points
    """what the plot spans, from `low` on"""

    def draw(self, draw: ImageDraw.ImageDraw, left: int, font: Any, index: int) -> None:
        draw.text(((left + _PAD) * _FINE, 6 * _FINE), self.title, _FAINT, font)
        corner = np.array([left + _PAD, _PLOT_TOP])
        draw.rectangle([tuple(corner * _FINE), tuple((corner + _PLOT_SIZE) * _FINE)], outline=_RULE, width=_FINE)
        if not len(self.done):
            draw.text(((left + 2 * _PAD) * _FINE, 40 * _FINE), "none: estimate_value is off", _FAINT, font)
            return
        done = self._pixels(self.done[: self.num_done[index]], left)
        if len(done) > 1:
            draw.line(done, _DONE, 2 * _FINE, "curve")
        planned = self._pixels(self.planned[index], left)
        if len(planned) > 1:
            draw.line(planned, _PLANNED, 2 * _FINE, "curve")
        for x, y in done[-1:]:
            draw.circle((x, y), 4 * _FINE, _INK)

    def _pixels(self, points: Points, left: int) -> list[tuple[float, float]]:
        share = (points - self.low) / self.span
        pixels = [left + _PAD, _PLOT_TOP] + np.stack([share[:, 0], 1 - share[:, 1]], axis=1) * _PLOT_SIZE
        return [(float(x) * _FINE, float(y) * _FINE) for x, y in pixels]


def _panel(
    title: str, done: Points, num_done: Sequence[int], planned: Sequence[Points], last_step: int | None
) -> _Panel:
    """Spans all points with some room. `last_step`: steps go to the right; None: a map, with metres both ways."""
    every = np.vstack([done, *planned]) if len(done) else np.zeros((1, 2))
    low, span = every.min(axis=0), np.maximum(np.ptp(every, axis=0), 1e-6)
    low, span = low - 0.08 * span, 1.16 * span
    if last_step is not None:
        low[0], span[0] = 0.0, max(last_step, every[:, 0].max(), 1)
    else:
        per_pixel = (span / _PLOT_SIZE).max()
        low, span = low + span / 2 - per_pixel * _PLOT_SIZE / 2, per_pixel * _PLOT_SIZE
    return _Panel(title, done, num_done, planned, low, span)


@dataclass(frozen=True, slots=True, eq=False)
class _Track:
    """The gripper's way, and what is planned at each shot. Points are `[n, 3]`, in m."""

    positions: NDArray[np.float64]
    """one for each shot"""
    paths: Sequence[NDArray[np.float64]]
    """of each plan, after an empty one for the time before the first plan"""
    plans: Sequence[int]
    """index of the present path at each shot"""

    @classmethod
    def of(cls, film: Film) -> _Track:
        plans = [0 if (plan := film.recording.plan_at(step)) is None else plan + 1 for step in film.steps]
        paths = [np.zeros((0, 3)), *planned_paths(film)]
        return cls(np.array([shot.position for shot in film.shots]), paths, plans)

    def at(self, index: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The way up to a shot, and the way that is planned then."""
        return self.positions[: index + 1], self.paths[self.plans[index]]


def _view(shot: Shot, camera: str, ways: tuple[NDArray[np.float64], NDArray[np.float64]]) -> Image.Image:
    """A camera's picture, with the ways drawn in where the camera stands still."""
    pixels = np.ascontiguousarray(shot.images[camera])
    view = Image.fromarray(pixels).resize((_VIEW * _FINE, _VIEW * _FINE), Image.Resampling.BICUBIC)
    if camera in _FIXED_CAMERAS and camera in shot.projections:
        draw = ImageDraw.Draw(view)
        for way, colour in zip(ways, (_DONE, _PLANNED), strict=True):
            points = _projected(shot.projections[camera], way) * (_VIEW * _FINE / pixels.shape[0])
            if len(points) > 1:
                draw.line([(float(x), float(y)) for x, y in points], colour, 2 * _FINE, "curve")
    return view.resize((_VIEW, _VIEW), Image.Resampling.BOX)


def _projected(projection: NDArray[np.float64], way: NDArray[np.float64]) -> Points:
    """Columns and rows `[n, 2]` of the points `[n, 3]` that the camera sees."""
    seen = np.hstack([way, np.ones((len(way), 1))]) @ projection.T
    seen = seen[seen[:, 2] > 0]
    return seen[:, :2] / seen[:, 2:]


def _panels(film: Film, track: _Track) -> list[_Panel]:
    recording, steps = film.recording, np.array(film.steps, np.float64)
    positions, paths, plans = track.positions, track.paths, track.plans
    heights = np.stack([steps, positions[:, 2]], axis=1)
    values = np.stack([recording.plan_steps.astype(np.float64), recording.values], axis=1)
    values = values[np.isfinite(values[:, 1])]
    begins = [0, *recording.plan_steps]
    tall = [np.stack([np.arange(len(path)) + begins[i], path[:, 2]], axis=1) for i, path in enumerate(paths)]
    num_shots = range(1, len(steps) + 1)
    num_values = [int((values[:, 0] <= step).sum()) for step in steps]
    value_title = "predicted value of the plan"
    if len(values):
        value_title += f", {values[:, 1].min():.3g} to {values[:, 1].max():.3g}"
    last = film.steps[-1]
    return [
        _panel(value_title, values, num_values, [np.zeros((0, 2))] * len(steps), last),
        _panel(
            "gripper from above, and planned", _above(positions), num_shots, [_above(paths[i]) for i in plans], None
        ),
        _panel("height of the gripper, and planned", heights, num_shots, [tall[i] for i in plans], last),
    ]


def _above(points: NDArray[np.float64]) -> Points:
    """`[n, 2]`: the ground as pictures of `agentview` show it to a policy: x grows downwards, y to the left."""
    return -points[:, [1, 0]]
