"""JPEG as robots send it: one quality, colours not subsampled, and the decoder of the server.

simplejpeg is imported when it is needed, because a robot's base install may lack it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

JPEG_QUALITY = 95

EncodeJpeg = Callable[[NDArray[np.uint8], int], bytes]


def jpeg_encoder() -> EncodeJpeg | None:
    """Encodes `[height, width, 3]` RGB with a quality; None without simplejpeg."""
    try:
        import simplejpeg
    except ModuleNotFoundError:
        return None
    # 4:4:4: a gripper's colours are a few pixels wide
    return lambda pixels, quality: bytes(simplejpeg.encode_jpeg(pixels, quality, "RGB", "444"))


def decode_jpeg(data: bytes) -> NDArray[np.uint8]:
    """`[height, width, 3]` RGB of a whole JPEG. Raises ValueError for a damaged one, ModuleNotFoundError."""
    import simplejpeg

    pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB", strict=True)
    return pixels
