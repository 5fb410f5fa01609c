"""Decodes a JPEG strictly: an image that libjpeg-turbo would have to repair is refused.

`jpeg_structure` has read the headers before. libjpeg-turbo says which entropy-coded data is damaged.
"""

from __future__ import annotations

import re

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from wavserve.edge.images.jpeg_structure import Jpeg
from wavserve.edge.images.refusal import broken

_MAX_PADDED_DECODES = 3  # libjpeg-turbo reads a few bytes ahead, so the first warning may count too few
_EXTRA_BEFORE_END = re.compile(r"(\d+) extraneous bytes before marker 0xd9")


def pixels(jpeg: Jpeg) -> NDArray[np.uint8]:
    """`[height, width, 3]` RGB. Raises ImageRefused."""
    data: bytes | memoryview = jpeg.data
    for _ in range(_MAX_PADDED_DECODES):
        try:
            decoded: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB", strict=True)
            return decoded
        except ValueError as error:
            warning = str(error)
        unpadded = _without_padding(data, warning)
        if unpadded is None:
            break
        data = unpadded
    raise broken("JPEG", warning.removeprefix("Corrupt JPEG data: "))


def _without_padding(data: bytes | memoryview, warning: str) -> bytes | None:
    """The image without the zeros that some cameras put between its last scan and its end marker, if they are zeros.

    Other bytes there may be rows: the header states too few, or damage made the decoder lose its place.
    """
    if (found := _EXTRA_BEFORE_END.search(warning)) is None:
        return None
    end = len(data) - 2
    start = end - int(found[1])
    if np.frombuffer(data, np.uint8, end - start, start).any():
        return None
    return bytes(data[:start]) + bytes(data[end:])
