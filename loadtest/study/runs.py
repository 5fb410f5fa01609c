"""The runs of a study: each is a `wavserve libero` with a folder of its own, which goes on after a kill.

Knows how runs are asked for and read, and not what they mean.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtest.study.plan import Starts, Study
from wavserve.cli import main
from wavserve.clients.libero.cells import Cell
from wavserve.clients.libero.records import EpisodeRecord, Run
from wavserve.clients.libero.results import load_run
from wavserve.core.files import write_whole


class StudyError(Exception):
    """A part of a study did not come to its end. What is on record stays there."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a study keeps its runs, and who makes its plans."""

    folder: Path
    bundle: str
    service: str | None
    """None: the plans are made in this process, with the models of the bundle"""


def run(place: Place, study: Study, name: str, starts: Starts, cells: Sequence[Cell], *flags: str) -> Run:
    """Runs what is not on record of a phase. Raises StudyError when the run ended with an error, which it told.

    `flags`: more flags of `wavserve libero`, which come before the file's keys.
    """
    file, out = place.folder / f"{name}.toml", place.folder / name
    write_whole(file, as_toml(study, starts, cells).encode())
    planner = ("--service", place.service) if place.service else ("--in-process", place.bundle)
    ask("libero", "--config", str(file), "--out", str(out), "--videos", "0", *planner, *flags)
    return load_run(out)


def ask(*command: str) -> None:
    """Runs a command of `wavserve` here. Raises StudyError when it ended with an error, which it told."""
    with contextlib.redirect_stdout(io.StringIO()):  # the study's output has tables of its own
        code = main(list(command))
    if code:
        raise StudyError(f"wavserve {shlex.join(command)}: ended with code {code}")


def as_toml(study: Study, starts: Starts, cells: Sequence[Cell]) -> str:
    """The file of a run, so that anyone can redo it by hand."""
    keys = {
        "suite": [study.suite],
        "tasks": list(study.tasks),
        "replan_steps": study.replan_steps,
        "no_antialiasing": study.no_antialiasing,
        "num_envs": study.num_envs,
        **dataclasses.asdict(starts),
    }
    lines = [f"{key} = {_value(value)}" for key, value in keys.items()]
    for cell in cells:
        lines += ["", "[[cells]]", *(f"{key} = {_value(value)}" for key, value in dataclasses.asdict(cell).items())]
    return "\n".join(lines) + "\n"


def _value(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return repr(value)
        case str():
            return f'"{value}"'  # names and modes: letters, digits, - and _
        case list():
            return f"[{', '.join(map(_value, value))}]"
        case dict():
            return f"{{ {', '.join(f'{key} = {_value(each)}' for key, each in value.items())} }}"
    raise TypeError(f"no TOML for {value!r}")


def joined(runs: Sequence[Run]) -> Run:
    """One run of the cells of several that have the same starts."""
    records: tuple[EpisodeRecord, ...] = tuple(record for each in runs for record in each.records)
    cells = tuple(cell for each in runs for cell in each.config.cells)
    return Run(dataclasses.replace(runs[0].config, cells=cells), records)
