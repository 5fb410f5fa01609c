"""Pictures as serving sees them: turned, resized as the server does, through the JPEG that a robot sends.

Knows no simulator.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from wavserve.core.jpeg import JPEG_QUALITY, decode_jpeg, jpeg_encoder
from wavserve.core.resize import Pixels, resize


def encoded(captured: Mapping[str, Pixels], size: int) -> dict[str, bytes]:
    """A JPEG of each camera's picture as captured. Raises ModuleNotFoundError without simplejpeg."""
    encode = jpeg_encoder()
    if encode is None:
        raise ModuleNotFoundError("No module named 'simplejpeg'", name="simplejpeg")
    return {camera: encode(_turned(pixels, size), JPEG_QUALITY) for camera, pixels in captured.items()}


def decoded(jpegs: Mapping[str, bytes]) -> dict[str, Pixels]:
    """What the server makes of them."""
    return {camera: decode_jpeg(jpeg) for camera, jpeg in jpegs.items()}


def _turned(pixels: Pixels, size: int) -> Pixels:
    """Turned by 180 degrees, as the literature's policies want LIBERO's pictures."""
    turned = np.ascontiguousarray(pixels[::-1, ::-1])
    return turned if turned.shape[:2] == (size, size) else resize(turned, size, size, "area")
