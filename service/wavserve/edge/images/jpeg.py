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

_EXTRA_BEFORE_END = re.compile(r"(\d+) extraneous bytes before marker 0xd9")


def pixels(jpeg: Jpeg) -> NDArray[np.uint8]:
    """`[height, width, 3]` RGB. Raises ImageRefused."""
    try:
        return _decoded(jpeg.data)
    except ValueError as error:
        unpadded = _without_padding(jpeg.data, str(error))
        if unpadded is None:
            raise broken("JPEG", str(error).removeprefix("Corrupt JPEG data: ")) from None
    try:
        return _decoded(unpadded)
    except ValueError as error:
        raise broken("JPEG", str(error).removeprefix("Corrupt JPEG data: ")) from None


def _decoded(data: bytes | memoryview) -> NDArray[np.uint8]:
    decoded: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB", strict=True)
    return decoded


def _without_padding(data: memoryview, warning: str) -> bytes | None:
    """The image without the zeros that some cameras put between its last scan and its end marker, if they are zeros.

    Other bytes there may be rows: the header states too few, or damage made the decoder lose its place.
    """
    if (found := _EXTRA_BEFORE_END.search(warning)) is None:
        return None
    end = len(data) - 2
    start = end - int(found[1])
    return None if any(data[start:end]) else bytes(data[:start]) + bytes(data[end:])
