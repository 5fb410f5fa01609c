"""The edge's slice of the settings: how much of a request is looked at before it is refused.

Filled by `app` from the settings, where the defaults are written.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EdgeLimits:
    """Sizes over these are TooLarge. Pixels are counted from an image's header, before anything is decoded."""

    max_body_bytes: int
    max_image_bytes: int
    """encoded bytes of one image"""
    max_image_pixels: int
