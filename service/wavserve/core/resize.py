"""Resizes images with Pillow's filters, at the server and at the robot: equal input gives equal pixels.

Halving by area has a faster way of its own, with the same pixels. Pillow is imported when it is needed, because a
robot's base install may lack it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wavserve.core.spec import Resize

Pixels = NDArray[np.uint8]
"""`[height, width, 3]` RGB"""

_FILTERS = {"bilinear": "BILINEAR", "bicubic": "BICUBIC", "area": "BOX"}
_NUM_CHANNELS = 3


def resize(pixels: Pixels, height: int, width: int, name: Resize) -> Pixels:
    """`[height, width, 3]` of an image `[h, w, 3]` by the filter of this name.

    Raises ModuleNotFoundError without Pillow, and KeyError for `exact`, which is no filter.
    """
    old_height, old_width, _ = pixels.shape
    # Pillow begins with the rows of a tall image, which rounds otherwise
    if name == "area" and (old_height, old_width) == (2 * height, 2 * width) and width >= height:
        return _halved(pixels)
    from PIL import Image

    return np.array(Image.fromarray(pixels).resize((width, height), Image.Resampling[_FILTERS[name]]))


def _halved(pixels: Pixels) -> Pixels:
    """The means of 2 x 2 pixels: of pairs in each row, then of these in each column, both rounded up as Pillow does.

    Whole arrays are faster than every second pixel, so the mean of each byte and the same channel of the next pixel is
    computed, and every second one is kept.
    """
    height, width, _ = pixels.shape
    flat = pixels.reshape(-1)
    pairs = np.empty_like(flat)
    pairs[:-_NUM_CHANNELS] = _mean(flat[:-_NUM_CHANNELS], flat[_NUM_CHANNELS:])  # the last pixel is not kept
    rows = pairs.reshape(height, -1)
    squares = _mean(rows[0::2], rows[1::2]).reshape(height // 2, width, _NUM_CHANNELS)
    halved = np.empty((height // 2, width // 2, _NUM_CHANNELS), np.uint8)
    for channel in range(_NUM_CHANNELS):
        halved[..., channel] = squares[:, ::2, channel]
    return halved


def _mean(first: Pixels, second: Pixels) -> Pixels:
    """`(first + second + 1) // 2`, in eight bits."""
    mean = first | second
    mean -= (first ^ second) >> 1
    return mean
