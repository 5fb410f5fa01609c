"""Cameras: pictures in RGB, frozen ones noticed."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.clients.piper.rig import eventually
from wavserve.clients.piper.cameras import Camera, OpenCvSource, Synthetic
from wavserve.clients.piper.config import CameraConfig, WatchConfig
from wavserve.core.errors import NotReady

SMALL = CameraConfig("top", "synthetic", width=64, height=48, hz=200.0)
WATCH = WatchConfig()


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Five pictures: red on the left, then more and more green."""
    file = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"MJPG"), 30, (64, 48))
    for i in range(5):
        picture = np.zeros((48, 64, 3), np.uint8)
        picture[:, :32, 2], picture[:, 32:, 1] = 250, 50 * i
        writer.write(picture)
    writer.release()
    return file


class Time:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_synthetic_camera_moves_from_picture_to_picture() -> None:
    source = Synthetic(SMALL)
    first, second = source.read(), source.read()
    assert first is not None
    assert second is not None
    assert first.shape == (48, 64, 3)
    assert (first != second).any()


def test_a_film_is_read_as_rgb_and_ends(film: Path) -> None:
    source = OpenCvSource(CameraConfig("top", "file", str(film), 64, 48, 500.0))
    pictures = []
    while (picture := source.read()) is not None:
        pictures.append(picture)
    source.close()
    assert len(pictures) == 5
    assert pictures[0][:, :28, 0].min() > 200
    assert pictures[0][:, :28, 2].max() < 60


def test_a_camera_plays_its_film_again(film: Path) -> None:
    camera = Camera(CameraConfig("top", "file", str(film), 64, 48, 500.0), WATCH)
    seen = []
    take = camera.take
    camera.take = lambda picture: (seen.append(picture), take(picture))  # type: ignore[method-assign, assignment]
    camera.start()
    eventually(lambda: len(seen) > 6)
    camera.close()


def test_a_device_that_does_not_exist_is_told() -> None:
    with pytest.raises(NotReady, match="/dev/video99"):
        OpenCvSource(CameraConfig("top", "device", "/dev/video99"))
    camera = Camera(CameraConfig("top", "device", "/dev/video99"), WATCH)
    camera.start()
    eventually(lambda: "cannot be opened" in (camera.problem() or ""))
    camera.close()


def test_a_camera_without_new_pictures_is_frozen() -> None:
    time = Time()
    camera = Camera(SMALL, WATCH, time)
    assert camera.problem() == "no picture yet"
    camera.take(np.zeros((48, 64, 3), np.uint8))
    assert camera.problem() is None
    time.now += 0.29
    assert camera.problem() is None
    time.now += 0.02
    assert camera.problem() == "no picture for more than 300 ms"
    time.now += 1.0
    assert camera.problem() == "no picture for more than 300 ms", "one text for one trouble: it is told once"


class Failing:
    """A device whose driver fails at the third picture, each time that it is opened."""

    def __init__(self) -> None:
        self._num_read, self.is_closed = 0, False

    def read(self) -> NDArray[np.uint8]:
        self._num_read += 1
        if self._num_read == 3:
            raise RuntimeError("the driver failed")
        return np.full((48, 64, 3), self._num_read, np.uint8)

    def close(self) -> None:
        self.is_closed = True


def test_a_camera_whose_driver_fails_is_told_and_opened_again() -> None:
    opened: list[Failing] = []

    def opener(config: CameraConfig) -> Failing:
        opened.append(Failing())
        return opened[-1]

    camera = Camera(SMALL, WATCH, opener=opener)
    camera.start()
    eventually(lambda: "RuntimeError: the driver failed" in str(camera.problem()))
    eventually(lambda: len(opened) > 1)
    assert opened[0].is_closed
    camera.close()


def test_a_camera_that_repeats_one_picture_is_frozen_until_it_changes() -> None:
    time = Time()
    camera = Camera(SMALL, WATCH, time)
    picture = np.zeros((48, 64, 3), np.uint8)
    for _ in range(12):
        camera.take(picture)
        time.now += 0.1
    assert camera.problem() == "the same picture for more than 1 s"
    camera.take(picture + 1)
    assert camera.problem() is None
