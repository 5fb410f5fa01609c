"""Finds what LeRobot says is left of a chunk in the chunk itself, which tells how many actions were executed.

LeRobot counts no steps, and it cuts the left-over or pads it with zeros. Knows neither torch nor the service.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wavserve.core.errors import InvalidRequest
from wavserve.core.types import Array


def find(left_over: Sequence[Array], chunks: Sequence[Array]) -> tuple[int, list[Array]]:
    """The index in each chunk at which what is left begins, and what is left without padding.

    Both have `[n, A]` for each environment. Zeros that are no actions of the chunks are padding: nothing is left.
    Raises InvalidRequest unless it is the same index of every chunk.
    """
    length = min((len(chunk) for chunk in chunks), default=0)
    if len(left_over) == len(chunks):
        pairs = list(zip(left_over, chunks, strict=True))
        for index in range(length):
            if all(_begins_at(index, rest, chunk) for rest, chunk in pairs):
                return index, [rest[: len(chunk) - index] for rest, chunk in pairs]
    if not any(rest.any() for rest in left_over):
        return length, []
    expected = f"actions of the latest chunks, of {len(chunks)} environments"
    raise InvalidRequest("prev_chunk_left_over", expected, f"others, of {len(left_over)} environments")


def _begins_at(index: int, rest: Array, chunk: Array) -> bool:
    """Whether the rest begins with the chunk's actions from an index on. Padding may follow the last one."""
    own = chunk[index : index + len(rest)]
    return np.array_equal(rest[: len(own)], own)
