"""LeRobot's batches become the pictures, states and instructions of single environments."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lerobot_policy_wavserve.batches import image_keys, instructions_of, pixels, seen_by
from wavserve.core.errors import InvalidRequest

KEY = "observation.images.top"
STATE = torch.tensor([[0.5, 0.25], [1.0, 2.0]])
EVERY_BYTE = np.arange(256 * 3, dtype=np.uint8).reshape(1, 16, 16, 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_pictures_come_back_bit_by_bit_from_lerobots_numbers(dtype: torch.dtype) -> None:
    numbers = torch.from_numpy(EVERY_BYTE).permute(0, 3, 1, 2).type(dtype) / 255
    assert np.array_equal(pixels(KEY, numbers), EVERY_BYTE)


def test_bytes_are_taken_as_they_are() -> None:
    assert np.array_equal(pixels(KEY, torch.from_numpy(EVERY_BYTE).permute(0, 3, 1, 2)), EVERY_BYTE)


@pytest.mark.parametrize(
    "pictures",
    [
        torch.zeros(1, 16, 16, 3),
        torch.zeros(3, 16, 16),
        torch.full((1, 3, 2, 2), 1.5),
        torch.full((1, 3, 2, 2), -0.1),
        torch.full((1, 3, 2, 2), torch.nan),
        torch.zeros(1, 3, 2, 2, dtype=torch.int64),
    ],
    ids=["channels last", "no batch", "above 1", "below 0", "nan", "wide integers"],
)
def test_pictures_of_another_form_are_refused(pictures: torch.Tensor) -> None:
    with pytest.raises(InvalidRequest) as caught:
        pixels(KEY, pictures)
    assert caught.value.field == KEY


def test_each_environment_gets_its_own_row() -> None:
    pictures = torch.stack([torch.zeros(3, 2, 2), torch.ones(3, 2, 2)])
    batch = {"observation.state": STATE, KEY: pictures, "task": ["a", "b"], "observation.image_is_pad": None}
    assert image_keys(batch) == [KEY]
    first, second = seen_by(batch, {KEY: "cam"}, instructions_of(batch, "task", ""))
    assert (first.state, second.state) == ((0.5, 0.25), (1.0, 2.0))
    assert (first.instruction, second.instruction) == ("a", "b")
    assert (first.images["cam"].max(), second.images["cam"].min()) == (0, 255)


def test_one_text_is_for_every_environment_and_the_default_fills_the_gaps() -> None:
    assert instructions_of({"observation.state": STATE, "task": "pick"}, "task", "") == ["pick", "pick"]
    assert instructions_of({"observation.state": STATE, "task": ["", "place"]}, "task", "pick") == ["pick", "place"]
    assert instructions_of({"observation.state": STATE}, "task", "pick") == ["pick", "pick"]


@pytest.mark.parametrize("task", [["", ""], [" ", "a"], ["a"], [1, 2], None])
def test_an_environment_without_an_instruction_is_refused(task: object) -> None:
    with pytest.raises(InvalidRequest) as caught:
        instructions_of({"observation.state": STATE, "task": task}, "task", "")
    assert caught.value.field == "task"


def test_a_state_without_a_batch_is_refused() -> None:
    for batch in ({}, {"observation.state": torch.zeros(2)}):
        with pytest.raises(InvalidRequest, match=r"observation.state: expected \[environments, numbers\]"):
            seen_by(batch, {}, [])
    with pytest.raises(InvalidRequest, match=f"{KEY}: expected 2 pictures"):
        seen_by({"observation.state": STATE, KEY: torch.zeros(1, 3, 2, 2)}, {KEY: "cam"}, ["a", "b"])
