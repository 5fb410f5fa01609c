"""Videos of recorded episodes: which are chosen, what is drawn, and a file that players understand."""

from __future__ import annotations

import dataclasses
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from imageio_ffmpeg import get_ffmpeg_exe

from tests.clients.libero.runs import (
    OFF,
    PAPER,
    example_config,
    example_record,
    example_recording,
    example_render,
    example_run,
)
from tests.clients.libero.sources import GoalSource
from tests.simulation.fake import FakeEnvironment, toward_goal
from wavserve.clients.libero.episode import EpisodeConfig, run_episode
from wavserve.clients.libero.records import Run
from wavserve.clients.libero.report.drawing import SIZE, Film, frames, planned_paths
from wavserve.clients.libero.report.html import html
from wavserve.clients.libero.report.recording import Recording, Shot, renderer
from wavserve.clients.libero.report.summary import Summary
from wavserve.clients.libero.report.video import encode, filmed, in_turns, write_videos
from wavserve.clients.libero.report.write import write_report
from wavserve.core.errors import InvalidRequest
from wavserve.core.resize import Pixels
from wavserve.core.simulation import Start

CONFIG = example_config(suites=("libero_object",), cells=(OFF,))
RECORD = example_record(CONFIG, OFF, num_steps=24)


def example_film() -> Film:
    return filmed(RECORD, example_recording(), example_render)


def recorded(folder: Path, recording: Recording) -> Run:
    """A run of one episode, whose states are in its folder."""
    file = RECORD.key.states_file(folder)
    file.parent.mkdir(parents=True)
    np.savez_compressed(file, **recording.arrays())  # type: ignore[arg-type]
    return Run(CONFIG, (RECORD,))


def grey(num: int) -> Iterator[Pixels]:
    for i in range(num):
        yield np.full((SIZE[1], SIZE[0], 3), 10 * i, np.uint8)


def test_failures_and_successes_of_many_tasks_come_first() -> None:
    config = example_config(suites=("libero_object",), cells=(OFF, PAPER))
    run = example_run(config, lambda cell, suite, task, state: state > 1)
    first = in_turns(run.records)[:6]
    assert [one.success for one in first] == [False, True] * 3
    assert len({(one.cell, one.task) for one in first if one.success}) == 3
    assert {one.key for one in in_turns(run.records)} == {one.key for one in run.records}
    assert len(in_turns(run.records)) == len(run.records)


def test_every_second_step_and_the_last_one_are_rendered() -> None:
    film = example_film()
    assert list(film.steps) == list(range(0, 25, 2))
    odd = filmed(RECORD, example_recording(num_steps=23), example_render)
    assert list(odd.steps)[-2:] == [22, 23]


def test_the_planned_motion_is_where_the_episode_went() -> None:
    """The gripper of the example follows its commands at 1 cm a unit, which nobody tells the drawing."""
    film = example_film()
    for plan, path in enumerate(planned_paths(film)):
        begin = int(film.recording.plan_steps[plan])
        assert path[:9] == pytest.approx(film.recording.states[begin : begin + 9], abs=1e-6)


def test_a_frame_has_both_pictures_and_the_plan_below() -> None:
    pictures = list(frames(example_film()))
    assert {picture.shape for picture in pictures} == {(576, 768, 3)}
    assert {picture.dtype for picture in pictures} == {np.dtype(np.uint8)}
    left, right, below = pictures[0][200, 100], pictures[0][200, 600], pictures[0][412:]
    assert int(left[0]) + int(right[0]) == 255
    amber = (np.abs(below.astype(int) - (251, 191, 36)).sum(axis=2) < 30).sum(axis=0)
    assert amber[:256].sum() == 0
    assert amber[256:512].sum() > 20
    assert amber[512:].sum() > 20


def test_a_frame_of_an_untrained_policy_says_so_in_red() -> None:
    def reds(film: Film) -> int:
        title = next(iter(frames(film)))[:28].astype(int)
        return int((np.abs(title - (248, 113, 113)).sum(axis=2) < 30).sum())

    film = example_film()
    assert reds(film) == 0
    assert reds(dataclasses.replace(film, untrained=True)) > 20


def test_a_plan_without_a_value_is_drawn_without_one() -> None:
    recording = dataclasses.replace(example_recording(), values=np.full(3, np.nan))
    film = filmed(RECORD, recording, example_render)
    assert len(list(frames(film))) == 13


def test_an_episode_without_a_plan_is_drawn() -> None:
    none = Recording(np.zeros((4, 3)), np.zeros(0, np.int64), np.zeros(0), np.zeros((0, 16, 7), np.float32))
    assert len(list(frames(filmed(RECORD, none, example_render)))) == 3


def test_a_predicted_return_is_drawn_rather_than_a_score() -> None:
    environment = FakeEnvironment()
    result = run_episode(environment, GoalSource(environment), Start("fake_reach", 0, 1, 7), EpisodeConfig())
    first, *others = result.chunks
    told = dataclasses.replace(result, chunks=(dataclasses.replace(first, expected_return=0.25), *others))
    assert Recording.of(told).values.tolist() == [0.25, 2.0, 3.0][: result.num_plans]
    assert told.values == result.values, "the value estimates"


def test_an_episode_that_was_run_is_filmed(tmp_path: Path) -> None:
    start = Start("fake_reach", 0, 1, 7)
    environment = FakeEnvironment()
    result = run_episode(environment, GoalSource(environment), start, EpisodeConfig())
    file = tmp_path / "states.npz"
    np.savez_compressed(file, **Recording.of(result).arrays())  # type: ignore[arg-type]
    recording = Recording.load(file)
    assert recording.plan_steps.tolist() == list(range(0, result.num_steps, 8))
    assert recording.values.tolist() == [1.0, 2.0, 3.0][: result.num_plans]
    record = dataclasses.replace(RECORD, suite=start.suite, task=start.task, state_index=start.state_index)
    film = filmed(record, recording, renderer(FakeEnvironment(), 180))
    assert len(list(frames(film))) == len(film.steps)
    path = planned_paths(film)[0][: film.steps[3] + 1 : 2]
    assert path == pytest.approx(np.array([shot.position for shot in film.shots[:4]]), abs=1e-6)


def test_a_cut_chunk_is_filled_up() -> None:
    start = Start("fake_reach", 0, 1, 7)
    environment = FakeEnvironment()
    result = run_episode(environment, GoalSource(environment), start, EpisodeConfig())
    whole, *others = result.chunks
    cut = dataclasses.replace(whole, actions=whole.actions[:5])
    recording = Recording.of(dataclasses.replace(result, chunks=(cut, *others)))
    assert (recording.chunks[0, :5] == whole.actions[:5]).all()
    assert not recording.chunks[0, 5:].any()
    assert Recording.of(dataclasses.replace(result, chunks=())).chunks.shape == (0, 0, 7)


def test_the_gripper_is_where_the_picture_shows_it() -> None:
    """The fake's robot is a white dot of 3 x 3 pixels."""
    start = Start("fake_reach", 0, 1, 7)
    environment = FakeEnvironment(size=64)
    environment.reset(start)
    environment.step(np.array([1.0, -1.0, 0, 0, 0, 0, -1.0]))
    for rotation in (0, 180):
        [shot] = renderer(FakeEnvironment(size=64), rotation)(start, np.array([environment.sim_state()]))
        column, row, w = shot.projections["agentview"] @ np.append(shot.position, 1.0)
        dot = np.argwhere((np.ptp(shot.images["agentview"], axis=2) == 0) & (shot.images["agentview"][:, :, 0] > 150))
        assert dot.mean(axis=0) + 0.5 == pytest.approx([row / w, column / w], abs=2)


def test_the_planned_way_is_drawn_into_the_fixed_cameras_picture() -> None:
    start = Start("fake_reach", 0, 1, 7)
    environment = FakeEnvironment()
    result = run_episode(environment, GoalSource(environment), start, EpisodeConfig())
    record = dataclasses.replace(RECORD, suite=start.suite, task=start.task, state_index=start.state_index)
    film = filmed(record, Recording.of(result), renderer(FakeEnvironment(), 180))
    picture = list(frames(film))[4].astype(int)
    for colour in ((251, 191, 36), (122, 162, 255)):
        near = np.abs(picture - colour).sum(axis=2) < 30
        assert near[28:412, :384].sum() > 20
        assert near[28:412, 384:].sum() == 0


def test_a_plan_lasts_until_the_next_one() -> None:
    recording = example_recording()
    assert [recording.plan_at(step) for step in (0, 7, 8, 30)] == [0, 0, 1, 2]


def test_a_simulator_renders_the_recorded_states_as_the_policy_sees_them() -> None:
    start = Start("fake_reach", 0, 1, 7)
    environment = FakeEnvironment()
    environment.reset(start)
    states, pictures, positions = [], [], []
    for _ in range(4):
        states.append(environment.sim_state())
        pictures.append(environment.images())
        positions.append(environment.state()[:3])
        environment.step(toward_goal(environment.state(), environment.goal))
    shots: list[Shot] = list(renderer(FakeEnvironment(), 180)(start, np.array(states)))
    for shot, picture, position in zip(shots, pictures, positions, strict=True):
        assert shot.position == pytest.approx(position)
        assert all((shot.images[name] == picture[name][::-1, ::-1]).all() for name in picture)


def test_a_video_is_h264_that_browsers_play(tmp_path: Path) -> None:
    file = tmp_path / "videos" / "one.mp4"
    encode(grey(20), file)
    told = subprocess.run([get_ffmpeg_exe(), "-i", file, "-f", "null", "-"], capture_output=True, check=True).stderr
    assert re.search(rb"Video: h264 .*yuv420p.*768x576", told)
    assert re.search(rb"frame= *20\b", told)
    assert re.search(rb"Duration: 00:00:02.00", told)
    assert file.read_bytes().index(b"moov") < file.read_bytes().index(b"mdat"), "a browser needs the index first"
    assert [each.name for each in file.parent.iterdir()] == ["one.mp4"]


def test_a_video_that_cannot_be_written_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "one.part").mkdir()
    with pytest.raises(InvalidRequest, match="a video that can be written"):
        encode(grey(3), tmp_path / "one.mp4")
    assert not (tmp_path / "one.mp4").exists()


def test_a_renderer_that_fails_leaves_no_video(tmp_path: Path) -> None:
    def failing() -> Iterator[Pixels]:
        yield from grey(2)
        raise RuntimeError("the simulator died")

    with pytest.raises(RuntimeError, match="died"):
        encode(failing(), tmp_path / "one.mp4")
    assert list(tmp_path.iterdir()) == []


def test_a_recorded_episode_becomes_a_video_once(tmp_path: Path) -> None:
    told: list[str] = []
    run = recorded(tmp_path, example_recording())
    [video] = write_videos(run, tmp_path, example_render, 4, told.append)
    assert told == [f"video: {video.words}"]
    assert video.words == "off, libero_object task 0, state 0: success, 24 steps"
    before = video.file.stat().st_mtime_ns
    assert write_videos(run, tmp_path, example_render, 4, told.append) == [video]
    assert write_videos(run, tmp_path, None, 0, told.append) == [video]
    assert video.file.stat().st_mtime_ns == before
    assert len(told) == 1


def damaged(whole: bytes) -> bytes:
    """An archive whose first member cannot be unpacked."""
    at = whole.index(b"states.npy") + 80
    return whole[:at] + bytes(byte ^ 0xFF for byte in whole[at : at + 40]) + whole[at + 40 :]


@pytest.mark.parametrize("change", [lambda _: b"no archive", lambda _: b"", damaged], ids=["other", "empty", "damaged"])
def test_states_that_are_no_recording_are_refused_and_the_report_is_there(tmp_path: Path, change: Any) -> None:
    run = recorded(tmp_path, example_recording())
    file = RECORD.key.states_file(tmp_path)
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(InvalidRequest, match="the recorded states of an episode"):
        write_report(run, tmp_path, example_render, 1, print)
    assert RECORD.cell in (tmp_path / "report" / "report.md").read_text()
    assert RECORD.cell in (tmp_path / "report" / "index.html").read_text()


def test_small_videos_are_inside_of_the_page_and_others_linked(tmp_path: Path) -> None:
    run = recorded(tmp_path, example_recording())
    [video] = write_videos(run, tmp_path, example_render, 1, print)
    assert 'src="data:video/mp4;base64,' in html(Summary.of(run), [video])
    large = dataclasses.replace(video, file=tmp_path / "videos" / "large.mp4")
    large.file.parent.mkdir()
    with large.file.open("wb") as stream:
        stream.truncate(16_000_001)
    assert 'src="videos/large.mp4"' in html(Summary.of(run), [large])
