"""Why an image is refused. The reader of a format raises it; `decode` adds the camera's name."""

from __future__ import annotations


class ImageRefused(Exception):
    """`expected` and `actual` are short readable texts."""

    def __init__(self, expected: str, actual: str) -> None:
        super().__init__(f"expected {expected}, got {actual}")
        self.expected = expected
        self.actual = actual


def broken(encoding: str, what: str) -> ImageRefused:
    """The refusal of a damaged or partial image. `encoding`: JPEG or PNG."""
    return ImageRefused(f"a complete {encoding}", f"broken data: {what}")
