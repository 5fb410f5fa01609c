"""What LeRobot says is left of a chunk tells how many of its actions were executed."""

from __future__ import annotations

import numpy as np
import pytest

from lerobot_policy_wavserve.left_over import find
from tests.integrations.policies import rows
from wavserve.core.errors import InvalidRequest

CHUNK = rows(0.0, num_steps=6)


@pytest.mark.parametrize("index", [0, 2, 5])
def test_the_rest_of_a_chunk_is_found(index: int) -> None:
    executed, [rest] = find([CHUNK[index:]], [CHUNK])
    assert executed == index
    assert np.array_equal(rest, CHUNK[index:])


def test_padding_is_dropped_and_a_part_is_enough() -> None:
    for padding in (np.zeros_like(CHUNK[:3]), np.repeat(CHUNK[-1:], 3, axis=0)):
        executed, [rest] = find([np.concatenate([CHUNK[4:], padding])], [CHUNK])
        assert (executed, rest.tolist()) == (4, CHUNK[4:].tolist())
    executed, [rest] = find([CHUNK[1:3]], [CHUNK])
    assert (executed, rest.tolist()) == (1, CHUNK[1:3].tolist())


def test_nothing_but_padding_means_that_nothing_is_left() -> None:
    assert find([np.zeros_like(CHUNK)], [CHUNK + 1]) == (6, [])
    assert find([np.zeros_like(CHUNK)], []) == (0, [])


def test_every_environment_has_executed_the_same() -> None:
    other = CHUNK + 1
    assert find([CHUNK[2:], other[2:]], [CHUNK, other])[0] == 2
    with pytest.raises(InvalidRequest, match="prev_chunk_left_over: expected actions of the latest chunks"):
        find([CHUNK[2:], other[3:]], [CHUNK, other])


@pytest.mark.parametrize(
    ("left_over", "chunks"),
    [([CHUNK + 1], [CHUNK]), ([CHUNK], []), ([CHUNK, CHUNK], [CHUNK]), ([CHUNK[:, :3]], [CHUNK])],
    ids=["other actions", "no chunk", "more environments", "another size"],
)
def test_actions_of_no_chunk_are_refused(left_over: list[np.ndarray], chunks: list[np.ndarray]) -> None:
    with pytest.raises(InvalidRequest):
        find(left_over, chunks)
