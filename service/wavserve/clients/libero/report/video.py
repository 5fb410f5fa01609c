"""Videos of episodes: chooses them, has their states rendered, and writes MP4 (H.264, yuv420p) that browsers play.

The encoder is the ffmpeg of the package imageio-ffmpeg, as a process of its own. Knows no simulator.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from tempfile import TemporaryFile

from wavserve.clients.libero.records import REPORT_FOLDER, EpisodeRecord, Run
from wavserve.clients.libero.report.drawing import SIZE, Film, frames
from wavserve.clients.libero.report.recording import Recording, Render
from wavserve.core.errors import InvalidRequest
from wavserve.core.resize import Pixels

VIDEOS_FOLDER = "videos"
STEPS_PER_FRAME, FRAMES_PER_S = 2, 10
"""in real time: a control step is 50 ms"""

Told = Callable[[str], None]
"""Hears what takes time."""


@dataclass(frozen=True, slots=True)
class EpisodeVideo:
    """A video, written or to be written."""

    file: Path
    words: str
    """says which episode it shows, and how it ended"""


def in_turns(records: Iterable[EpisodeRecord]) -> list[EpisodeRecord]:
    """Failures and successes by turns, the first of each task, then the second of each, and so on."""
    listed = list(records)
    turns = (_spread([one for one in listed if one.success == success]) for success in (False, True))
    return [one for one in chain.from_iterable(zip_longest(*turns)) if one is not None]


def _spread(records: Sequence[EpisodeRecord]) -> list[EpisodeRecord]:
    """The first of each task in each cell, then the second of each, and so on."""
    seen: Counter[tuple[str, str, int]] = Counter()
    turns = []
    for record in sorted(records, key=lambda one: one.key):
        task = (record.cell, record.suite, record.task)
        turns.append((seen[task], record.key, record))
        seen[task] += 1
    return [record for _, _, record in sorted(turns, key=lambda turn: turn[:2])]


def write_videos(run: Run, folder: Path, render: Render | None, num: int, told: Told) -> list[EpisodeVideo]:
    """Makes videos of at most `num` episodes whose states were recorded, and returns all that are in the folder.

    One that is there already is kept. Without `render` none is made. `told` hears of each one that is being made.
    Raises InvalidRequest when the states cannot be read or the video cannot be written, and what `render` raises.
    """
    videos = {record.key: _video(record, folder) for record in run.records}
    recorded = [record for record in run.records if record.key.states_file(folder).exists()]
    for record in in_turns(recorded)[:num]:
        video = videos[record.key]
        if render is not None and not video.file.exists():
            told(f"video: {video.words}")
            encode(frames(filmed(record, Recording.load(record.key.states_file(folder)), render)), video.file)
    return [video for record in in_turns(run.records) if (video := videos[record.key]).file.exists()]


def _video(record: EpisodeRecord, folder: Path) -> EpisodeVideo:
    name = f"{record.key.states_file(folder).stem}.mp4"
    return EpisodeVideo(folder / REPORT_FOLDER / VIDEOS_FOLDER / name, _words(record))


def filmed(record: EpisodeRecord, recording: Recording, render: Render) -> Film:
    """Renders every second state of an episode, and its last one."""
    last = len(recording.states) - 1
    steps = sorted({*range(0, last, STEPS_PER_FRAME), last})
    return Film(_words(record), record.untrained, recording, steps, list(render(record.start, recording.states[steps])))


def _words(record: EpisodeRecord) -> str:
    end = "success" if record.success else "no success"
    return (
        f"{record.cell}, {record.suite} task {record.task}, state {record.state_index}: {end}, {record.num_steps} steps"
    )


def encode(pictures: Iterator[Pixels], file: Path) -> None:
    """Writes a video as a whole, or not at all. Pictures: `[height, width, 3]` of SIZE."""
    from imageio_ffmpeg import get_ffmpeg_exe

    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(".part")
    command = [get_ffmpeg_exe(), "-y", "-loglevel", "error"]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{SIZE[0]}x{SIZE[1]}", "-r", str(FRAMES_PER_S), "-i", "-"]
    command += ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-preset", "fast", "-crf", "23", "-threads", "2"]
    command += ["-movflags", "+faststart", "-f", "mp4", str(temporary)]
    try:
        with TemporaryFile() as told, subprocess.Popen(command, stdin=subprocess.PIPE, stderr=told) as encoder:
            _feed(encoder, pictures)
            if encoder.wait():
                told.seek(0)
                reason = told.read().decode(errors="replace").strip()[-200:]
                raise InvalidRequest(str(file), "a video that can be written", reason or "no word of ffmpeg")
        temporary.replace(file)
    finally:
        with contextlib.suppress(OSError):  # it may never have come to be
            temporary.unlink()


def _feed(encoder: subprocess.Popen[bytes], pictures: Iterator[Pixels]) -> None:
    assert encoder.stdin is not None, "its input is a pipe"
    try:
        with contextlib.suppress(BrokenPipeError):  # the encoder ended; it says why
            for picture in pictures:
                encoder.stdin.write(picture.tobytes())
            encoder.stdin.close()
    except BaseException:
        encoder.kill()
        raise
