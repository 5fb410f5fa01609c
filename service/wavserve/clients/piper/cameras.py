"""Cameras on threads of their own: the newest picture of each, with its age, and whether it is frozen.

A camera is frozen when no picture comes, or when the same picture comes again and again. Sources: an OpenCV device, a
video file that loops, a moving synthetic picture. Knows no policy: pictures keep the size that the camera gives.
"""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from wavserve.clients.piper.config import CameraConfig, WatchConfig
from wavserve.core.errors import NotReady
from wavserve.core.types import Clock

Picture = NDArray[np.uint8]
"""`[height, width, 3]` RGB"""

RETRY_S = 0.5
"""between two tries to open a camera that gave no picture"""


class Source(Protocol):
    """Where pictures come from. `read` blocks until the next one; None: there is none, open it again."""

    def read(self) -> Picture | None: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Frame:
    picture: Picture
    captured_s: float
    """monotonic seconds"""
    changed_s: float
    """when the picture last differed from the one before"""


class Camera:
    """Reads its source until `close`, and opens it again when it ends."""

    def __init__(
        self, config: CameraConfig, watch: WatchConfig, clock: Clock = time.monotonic,
        opener: Callable[[CameraConfig], Source] | None = None,
    ) -> None:  # fmt: skip
        self.config = config
        self._opener = opener or open_source
        self._watch = watch
        self._clock = clock
        self._latest: Frame | None = None
        self._failure = "no picture yet"
        self._digest: int | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"camera {config.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def latest(self) -> Frame | None:
        return self._latest

    def problem(self) -> str | None:
        """Why the camera cannot be trusted now; None: it can. One trouble has one text, however long it lasts."""
        frame = self._latest
        if frame is None:
            return self._failure
        now = self._clock()
        age_ms, same_s = (now - frame.captured_s) * 1e3, now - frame.changed_s
        if age_ms > self._watch.max_frame_age_ms:
            why = f": {self._failure}" if self._failure else ""
            return f"no picture for more than {self._watch.max_frame_age_ms:g} ms{why}"
        if same_s > self._watch.max_same_frame_s:
            return f"the same picture for more than {self._watch.max_same_frame_s:g} s"
        return None

    def close(self) -> None:
        """Does not wait for a device that never returns."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(1.0)

    def take(self, picture: Picture) -> None:
        """Makes a picture the newest one."""
        now, digest = self._clock(), zlib.crc32(picture.tobytes())
        changed = digest != self._digest
        self._digest, self._failure = digest, ""
        before = self._latest
        self._latest = Frame(picture, now, now if changed or before is None else before.changed_s)

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                self._read(self._opener(self.config))
                self._failure = "the camera gave no picture"
            except NotReady as error:
                self._failure = error.message
            except Exception as error:  # noqa: BLE001  a driver may raise anything; the robot holds, and is told why
                self._failure = f"{type(error).__name__}: {error}"
            self._ended.wait(RETRY_S)

    def _read(self, source: Source) -> None:
        """Until the source has no picture."""
        try:
            while not self._ended.is_set() and (picture := source.read()) is not None:
                self.take(picture)
        finally:
            source.close()


def open_source(config: CameraConfig) -> Source:
    """Raises NotReady when the device or the file cannot be opened."""
    if config.source == "synthetic":
        return Synthetic(config)
    return OpenCvSource(config)


class Synthetic:
    """A disc that moves over a gradient; each picture differs from the one before."""

    def __init__(self, config: CameraConfig) -> None:
        rows, columns = np.mgrid[0 : config.height, 0 : config.width].astype(np.float32)
        self._rows, self._columns = rows, columns
        ramp = columns / max(config.width, 1) * 160 + 40
        self._background = np.stack([ramp, ramp[:, ::-1], rows / max(config.height, 1) * 200], axis=-1).astype(np.uint8)
        self._period_s = 1.0 / config.hz
        self._index = 0
        self._next_s = time.monotonic()

    def read(self) -> Picture | None:
        self._next_s = max(self._next_s + self._period_s, time.monotonic() - self._period_s)
        time.sleep(max(0.0, self._next_s - time.monotonic()))
        self._index += 1
        height, width = self._rows.shape
        angle = self._index * 0.05
        row, column = height * (0.5 + 0.3 * np.sin(angle)), width * (0.5 + 0.3 * np.cos(angle))
        disc = (self._rows - row) ** 2 + (self._columns - column) ** 2 < (height / 8) ** 2
        picture = self._background.copy()
        picture[disc] = (250, self._index % 200, 30)
        return picture

    def close(self) -> None:
        pass


class OpenCvSource:
    """A device or a video file. A file plays at the configured rate, and its end ends the source."""

    def __init__(self, config: CameraConfig) -> None:
        import cv2

        self._is_file = config.source == "file"
        self._period_s, self._next_s = 1.0 / config.hz, time.monotonic()
        name: Any = int(config.path) if config.path.isdecimal() and not self._is_file else config.path
        self._capture = cv2.VideoCapture(name)
        if not self._capture.isOpened():
            raise NotReady(f"camera {config.name}: {config.path} cannot be opened")
        if not self._is_file:
            wanted: Mapping[int, float] = {
                cv2.CAP_PROP_FRAME_WIDTH: config.width,
                cv2.CAP_PROP_FRAME_HEIGHT: config.height,
                cv2.CAP_PROP_FPS: config.hz,
                cv2.CAP_PROP_BUFFERSIZE: 1,
            }
            for key, value in wanted.items():
                self._capture.set(key, value)

    def read(self) -> Picture | None:
        if self._is_file:
            self._next_s = max(self._next_s + self._period_s, time.monotonic() - self._period_s)
            time.sleep(max(0.0, self._next_s - time.monotonic()))
        there, picture = self._capture.read()
        if not there:
            return None
        return np.ascontiguousarray(picture[:, :, ::-1], dtype=np.uint8)  # BGR to RGB

    def close(self) -> None:
        self._capture.release()
