"""Pictures of a robot's cameras as the policy wants them: turned, resized, and as JPEG.

JPEG and resizing need the extra `[robot]` (simplejpeg, Pillow). Without it pictures travel raw at the size they have,
with one warning in the log. Knows no stream and no clock.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np

from wavserve.core.errors import InvalidRequest, shown
from wavserve.core.jpeg import JPEG_QUALITY, jpeg_encoder
from wavserve.core.messages import EncodedImage
from wavserve.core.resize import Pixels, resize
from wavserve.core.spec import CameraSpec, Orientation

_log = logging.getLogger(__name__)

_HINT = "install the extra [robot] (pip install 'wavserve[robot]') to send smaller pictures"


class ImageEncoder:
    """Encodes one picture of each camera of a policy. Any thread may use it."""

    def __init__(
        self,
        cameras: Sequence[CameraSpec],
        orientations: Mapping[str, Orientation] | None = None,
        jpeg_quality: int | None = JPEG_QUALITY,
    ) -> None:
        """`cameras`: as the policy declares them. `orientations`: of the pictures that are given here, by camera; a
        camera that is not named gives them as the policy wants them. `jpeg_quality`: 1 to 100; None: raw pixels.
        """
        if jpeg_quality is not None and not 1 <= jpeg_quality <= 100:
            raise InvalidRequest("jpeg_quality", "1 to 100, or None for raw pixels", jpeg_quality)
        self._cameras = {camera.name: camera for camera in cameras}
        self._turned = {name for name, given in (orientations or {}).items() if self._camera(name).orientation != given}
        self._jpeg_quality = jpeg_quality
        self._encode_jpeg = None if jpeg_quality is None else jpeg_encoder()
        self._has_pillow = True
        if jpeg_quality is not None and self._encode_jpeg is None:
            _log.warning("pictures travel as raw pixels, because simplejpeg is not installed: %s", _HINT)

    def encode(self, pictures: Mapping[str, Pixels], captured_mono_ns: int = 0) -> tuple[EncodedImage, ...]:
        """The pictures, `[height, width, 3]` RGB of uint8, by camera. `captured_mono_ns`: 0: not stated.

        Raises InvalidRequest for a missing or unknown camera, for an array of another form, and for another size where
        the policy takes one exactly.
        """
        for name in pictures:
            self._camera(name)
        return tuple(
            self._encode(camera, pictures.get(camera.name), captured_mono_ns) for camera in self._cameras.values()
        )

    def _encode(self, camera: CameraSpec, picture: Pixels | None, captured_mono_ns: int) -> EncodedImage:
        pixels = self._resized(camera, _checked(camera, picture))
        height, width, _ = pixels.shape
        if self._encode_jpeg is None or self._jpeg_quality is None:
            return EncodedImage(camera.name, "raw_rgb8", pixels.tobytes(), height, width, 3, captured_mono_ns)
        data = self._encode_jpeg(pixels, self._jpeg_quality)
        return EncodedImage(camera.name, "jpeg", data, height, width, 3, captured_mono_ns)

    def _resized(self, camera: CameraSpec, picture: Pixels) -> Pixels:
        """The picture in the policy's orientation and size, its bytes in order."""
        pixels = np.ascontiguousarray(picture[::-1, ::-1] if camera.name in self._turned else picture)
        if pixels.shape[:2] == (camera.height, camera.width) or not self._has_pillow:
            return pixels
        if camera.resize == "exact":
            raise InvalidRequest(f"images.{camera.name}", *_sizes(camera, pixels))
        try:
            return resize(pixels, camera.height, camera.width, camera.resize)
        except ModuleNotFoundError:
            self._has_pillow = False
            _log.warning("the server resizes the pictures, because Pillow is not installed: %s", _HINT)
            return pixels

    def _camera(self, name: str) -> CameraSpec:
        if name not in self._cameras:
            expected = f"one of the cameras {', '.join(self._cameras)}"
            raise InvalidRequest(f"images.{str(name)[:64]}", expected, "an unknown camera")
        return self._cameras[name]


def encode_images(
    pictures: Mapping[str, Pixels], cameras: Sequence[CameraSpec], jpeg_quality: int | None = JPEG_QUALITY
) -> tuple[EncodedImage, ...]:
    """Pictures that have the policy's orientation, for one request. See `ImageEncoder`."""
    return ImageEncoder(cameras, jpeg_quality=jpeg_quality).encode(pictures)


def _checked(camera: CameraSpec, picture: Pixels | None) -> Pixels:
    if picture is None:
        raise InvalidRequest(f"images.{camera.name}", "a picture of each camera", "none")
    form = (getattr(picture, "dtype", None), getattr(picture, "ndim", 0))
    if form != (np.uint8, 3) or picture.shape[2] != 3 or not picture.size:
        actual = f"{form[0]} {list(picture.shape)}" if form[0] is not None else shown(type(picture))
        raise InvalidRequest(f"images.{camera.name}", "uint8 [height, width, 3]", actual)
    return picture


def _sizes(camera: CameraSpec, pixels: Pixels) -> tuple[str, str]:
    return f"{camera.height} x {camera.width} (height x width)", f"{pixels.shape[0]} x {pixels.shape[1]}"
