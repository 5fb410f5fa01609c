"""Imagined frames against true ones, in a scene without a simulator."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadtest.study.frames import Future, Likeness, check_comparable, imagined, likenesses, likenesses_on_file, psnr
from loadtest.study.plan import Study, read_study
from loadtest.study.runs import StudyError
from tests.clients.chunks import chunk_of
from tests.clients.libero.examples import LIBERO_POLICY
from tests.training.fake_scene import SUITE, FakeScene
from wavserve.bundle import bundle
from wavserve.core.messages import ActionChunk, Observation, PolicyInfo
from wavserve.core.resize import Pixels
from wavserve.policy.imagined import encode_png

SIZE = 128


class Planner:
    """Moves aside, and imagines grey pictures whose shade tells the control step."""

    def __init__(self) -> None:
        self.asked: list[Observation] = []

    def plan(self, observation: Observation) -> ActionChunk:
        self.asked.append(observation)
        actions = np.tile(np.float32([0.3, 0, 0, 0, 0, 0, -1]), (16, 1))
        chunk = chunk_of(actions, observation.control_step, observation.sequence, dt_ns=50_000_000, epoch=0)
        shades = (0, observation.control_step)
        frames = {
            camera: tuple(encode_png(camera, np.full((SIZE, SIZE, 3), shade, np.uint8)) for shade in shades)
            for camera in ("agentview", "wrist")
        }
        receipt = replace(chunk.receipt, policy_digest=LIBERO_POLICY.digest)
        return replace(chunk, imagined=frames, receipt=receipt)

    def end(self, session_id: str) -> None: ...

    def policy(self) -> PolicyInfo:
        cameras = tuple(replace(camera, height=SIZE, width=SIZE) for camera in LIBERO_POLICY.cameras)
        return replace(LIBERO_POLICY, cameras=cameras, horizon=16)

    def close(self) -> None: ...


@pytest.fixture
def study() -> Study:
    return replace(read_study(Path("policies/tiny-libero/study.toml")), suite=SUITE, tasks=(0,))


def test_a_future_is_what_a_plan_imagined_and_what_came_after_its_whole_chunk(study: Study) -> None:
    planner = Planner()
    futures = list(imagined(study, FakeScene(size=SIZE), planner, 180, lambda _: None))
    steps = [observation.control_step for observation in planner.asked]
    assert steps == list(range(0, 200, 16)), "whole chunks are executed"
    assert {observation.imagine_chunks for observation in planner.asked} == {1}
    assert len(futures) == len(steps) - 1, "the last chunk has no picture after it"
    assert [int(future.imagined["wrist"].mean()) for future in futures] == steps[:-1]
    for future, following in itertools.pairwise(futures):
        assert np.array_equal(future.true["agentview"], following.seen["agentview"])
        assert not np.array_equal(future.seen["agentview"], future.true["agentview"])


def grey(shade: int) -> dict[str, Pixels]:
    return {"agentview": np.full((4, 4, 3), shade, np.uint8)}


def test_likeness_is_held_against_the_last_picture(tmp_path: Path) -> None:
    futures = [Future(seen=grey(0), imagined=grey(102), true=grey(153))] * 12
    [found] = likenesses(futures)
    imagined_db, copied_db = (pytest.approx(-20 * np.log10(error / 255)) for error in (51, 153))
    assert (found.imagined_db, found.copied_db, found.num) == (imagined_db, copied_db, 12)
    assert psnr(grey(7)["agentview"], grey(7)["agentview"]) == pytest.approx(60.0)
    assert likenesses([]) == []
    file, calls = tmp_path / "imagined.json", []

    def taken() -> Iterator[Future]:
        calls.append(1)
        return iter(futures)

    assert (
        likenesses_on_file(file, taken)
        == likenesses_on_file(file, taken)
        == [Likeness("agentview", found.imagined_db, found.copied_db, 12)]
    )
    assert len(calls) == 1
    assert file.with_suffix(".png").exists()


@pytest.mark.parametrize(
    ("cameras", "chunk", "words"),
    [
        ({"height": 256}, 16, "camera agentview: expected 128 x 128, rotated_180, got (256, 128, 'rotated_180')"),
        ({"orientation": "as_captured"}, 16, "camera agentview: expected 128 x 128, rotated_180, got (128, 128"),
        ({}, 20, "future: expected to lie as far ahead as the chunk, 20 steps, got 16"),
    ],
)
def test_a_policy_whose_frames_cannot_be_compared_is_refused(cameras: dict[str, Any], chunk: int, words: str) -> None:
    spec = bundle.load_spec(Path("policies/tiny-libero"))
    check_comparable(spec)
    other = replace(spec, chunk=chunk, cameras=(replace(spec.cameras[0], **cameras), *spec.cameras[1:]))
    with pytest.raises(StudyError, match=re.escape(words)):
        check_comparable(other)
