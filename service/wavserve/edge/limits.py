"""The edge's slice of the settings: the largest request and images it accepts. The defaults are in the settings."""

from __future__ import annotations

from dataclasses import dataclass

MAX_CONNECTIONS = 1024
"""Connections of one edge where nothing else limits them."""


@dataclass(frozen=True, slots=True)
class EdgeLimits:
    """Larger sizes raise TooLarge. Pixels are counted from an image's header, before anything is decoded."""

    max_body_bytes: int
    max_image_bytes: int
    """encoded bytes of one image"""
    max_image_pixels: int
