"""Decodes images to pixels at the policy's size. An image that differs from its declaration is refused.

Decoding blocks, so it runs on worker threads and never on the event loop. An image's size and the work that it costs
are read from its headers before any pixel is decoded. Nothing is repaired: no missing byte, no other colour mode, and
no other size unless the camera declares a filter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wavserve.core.errors import InvalidRequest, TooLarge, UnsupportedMedia
from wavserve.core.messages import ENCODINGS, EncodedImage
from wavserve.core.resize import resize
from wavserve.core.spec import CameraSpec
from wavserve.edge.images import jpeg, jpeg_structure, png
from wavserve.edge.images.refusal import ImageRefused
from wavserve.edge.limits import EdgeLimits
from wavserve.policy.digests import image_digest

Pixels = NDArray[np.uint8]

_RAW_ENCODINGS = ("raw_rgb8", "raw_bgr8")
_SIGNATURES = {
    b"\xff\xd8\xff": "JPEG data",
    png.SIGNATURE: "PNG data",
    b"GIF8": "GIF data",
    b"RIFF": "RIFF data",
}


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """`pixels [height, width, 3]` RGB at the camera's size; writable, so that torch takes it without a copy."""

    pixels: Pixels
    digest: str
    """of the pixels; see `image_digest`"""


def match_cameras(images: Sequence[EncodedImage], cameras: Sequence[CameraSpec]) -> dict[str, EncodedImage]:
    """camera -> its image, in the policy's order. Raises InvalidRequest for a missing, unknown or repeated camera."""
    names = [camera.name for camera in cameras]
    counts = Counter(image.camera for image in images)
    for name, count in counts.items():
        if name not in names:
            raise InvalidRequest(f"images.{name}", f"one of the cameras {', '.join(names)}", "an unknown camera")
        if count > 1:
            raise InvalidRequest(f"images.{name}", "one image", f"{count} images")
    for name in names:
        if name not in counts:
            raise InvalidRequest(f"images.{name}", f"one image of each camera {', '.join(names)}", "no image")
    by_name = {image.camera: image for image in images}
    return {name: by_name[name] for name in names}


def decode(encoded: EncodedImage, camera: CameraSpec, limits: EdgeLimits) -> DecodedImage:
    """The image at the camera's size.

    Raises UnsupportedMedia (encoding), TooLarge (bytes, pixels) or InvalidRequest naming `images.<camera>.<field>`.
    """
    field = f"images.{encoded.camera}"
    if encoded.encoding not in ENCODINGS:
        raise UnsupportedMedia(f"{field}.encoding", f"one of {', '.join(ENCODINGS)}", encoded.encoding)
    if encoded.channels not in (0, 3):
        raise InvalidRequest(f"{field}.channels", 3, encoded.channels)
    if len(encoded.data) > limits.max_image_bytes:
        raise TooLarge(f"{field}.data", f"at most {limits.max_image_bytes} bytes", f"{len(encoded.data)} bytes")
    read = _raw if encoded.encoding in _RAW_ENCODINGS else _compressed
    try:
        pixels = read(encoded, camera, limits, field)
    except ImageRefused as error:
        raise InvalidRequest(f"{field}.data", error.expected, error.actual) from None
    if pixels.shape[:2] != (camera.height, camera.width):
        pixels = resize(pixels, camera.height, camera.width, camera.resize)
    return DecodedImage(pixels, image_digest(pixels))


def _raw(encoded: EncodedImage, camera: CameraSpec, limits: EdgeLimits, field: str) -> Pixels:
    height, width = encoded.height, encoded.width
    for side, value in (("height", height), ("width", width)):
        if value < 1:
            raise InvalidRequest(f"{field}.{side}", "the image's size, which raw encodings require", value)
    _check_size(height, width, camera, limits, field)
    if len(encoded.data) != height * width * 3:
        expected = f"{height * width * 3} bytes ({height} x {width} x 3)"
        raise InvalidRequest(f"{field}.data", expected, f"{len(encoded.data)} bytes")
    sent = np.frombuffer(encoded.data, np.uint8).reshape(height, width, 3)
    return np.array(sent if encoded.encoding == "raw_rgb8" else sent[..., ::-1], order="C")


def _compressed(encoded: EncodedImage, camera: CameraSpec, limits: EdgeLimits, field: str) -> Pixels:
    """A JPEG or PNG. Its headers are checked first, before any pixel is decoded."""
    _check_signature(encoded)
    data = bytes(encoded.data)
    image = jpeg_structure.read(data) if encoded.encoding == "jpeg" else png.read(data)
    for side, stated, actual in (("height", encoded.height, image.height), ("width", encoded.width, image.width)):
        if stated not in (0, actual):
            raise InvalidRequest(f"{field}.{side}", f"{actual}, as the {encoded.encoding} header says", stated)
    _check_size(image.height, image.width, camera, limits, field)
    return jpeg.pixels(image) if isinstance(image, jpeg_structure.Jpeg) else png.pixels(image)


def _check_signature(encoded: EncodedImage) -> None:
    """Raises ImageRefused when the data does not begin as the declared format does."""
    declared = f"{encoded.encoding.upper()} data"
    detected = next((name for start, name in _SIGNATURES.items() if encoded.data.startswith(start)), "other data")
    if detected != declared:
        raise ImageRefused(declared, f"{detected}, {len(encoded.data)} bytes")


def _check_size(height: int, width: int, camera: CameraSpec, limits: EdgeLimits, field: str) -> None:
    if height * width > limits.max_image_pixels:
        actual = f"{height * width} pixels ({height} x {width})"
        raise TooLarge(f"{field}.data", f"at most {limits.max_image_pixels} pixels", actual)
    if camera.resize == "exact" and (height, width) != (camera.height, camera.width):
        raise InvalidRequest(
            f"{field}.data", f"{camera.height} x {camera.width} (height x width)", f"{height} x {width}"
        )
