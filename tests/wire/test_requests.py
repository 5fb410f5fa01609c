"""What a robot's program may put into an observation: numpy's numbers and buffers; others are refused by field."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.edge.fakes import example_image, example_observation
from wavserve.core.errors import InvalidRequest
from wavserve.wire.requests import plan_request

PIXELS = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)


@pytest.mark.parametrize(
    ("data", "carried"),
    [
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"ab"), b"ab"),
        (np.frombuffer(b"ab", np.uint8), b"ab"),
        (np.bytes_(b"ab"), b"ab"),
        (PIXELS, PIXELS.tobytes()),
        (PIXELS[:, ::-1], PIXELS[:, ::-1].tobytes()),
    ],
    ids=["bytearray", "memoryview", "uint8", "bytes_", "picture", "mirrored picture"],
)
def test_any_buffer_of_bytes_is_a_pictures_data(data: Any, carried: bytes) -> None:
    observation = example_observation(images=(replace(example_image(), data=data),))
    assert plan_request(observation).images[0].data == carried


@pytest.mark.parametrize("data", ["ab", 5, None, [1, 2], PIXELS.astype(np.float32), np.array([None])])
def test_other_data_is_refused_with_the_camera(data: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"images\.agentview\.data: expected bytes"):
        plan_request(example_observation(images=(replace(example_image(), data=data),)))


def test_numpy_numbers_are_numbers() -> None:
    image = replace(example_image(), height=np.int64(3), captured_mono_ns=np.int64(4))
    message = plan_request(
        example_observation(
            images=[image],
            state=np.array([1.5, 2.0]),
            sequence=np.int64(7),
            seed=np.uint64(2**63),
            deadline_ms=np.int32(200),
            options={"num_iterations": np.int64(2), "smoothing": np.float32(0.5)},
        )
    )
    assert (message.images[0].height, message.images[0].captured_mono_ns) == (3, 4)
    assert list(message.state) == [1.5, 2.0]
    assert (message.sequence, message.seed, message.deadline_ms) == (7, 2**63, 200)
    assert (message.planner.num_iterations, message.planner.smoothing) == (2, 0.5)
    assert list(plan_request(example_observation(state=[1, np.float32(0.5)])).state) == [1.0, 0.5]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"sequence": 1.5}, "sequence"),
        ({"sequence": np.float64(1.0)}, "sequence"),
        ({"sequence": True}, "sequence"),
        ({"sequence": None}, "sequence"),
        ({"sequence": 2**64}, "sequence"),
        ({"sequence": 10**5000}, "sequence"),
        ({"deadline_ms": 200.0}, "deadline_ms"),
        ({"deadline_ms": "200"}, "deadline_ms"),
        ({"seed": -1}, "seed"),
        ({"instruction": "\ud800"}, "instruction"),
        ({"instruction": None}, "instruction"),
        ({"instruction": 5}, "instruction"),
        ({"session_id": 5}, "session_id"),
        ({"state": None}, "state"),
        ({"state": 5}, "state"),
        ({"state": np.ones((2, 2))}, "state[0]"),
        ({"state": (1.0, None)}, "state[1]"),
        ({"state": (1.0, 10**400)}, "state[1]"),
        ({"images": None}, "images"),
        ({"images": (b"png",)}, "images[0]"),
        ({"images": (replace(example_image(), height=-1),)}, "images.agentview.height"),
        ({"images": (replace(example_image(), width=1.5),)}, "images.agentview.width"),  # type: ignore[arg-type]
        ({"images": (replace(example_image(), camera=None),)}, "images.?.camera"),  # type: ignore[arg-type]
        ({"images": (replace(example_image(), encoding=None),)}, "images.agentview.encoding"),  # type: ignore[arg-type]
        ({"options": ["mode"]}, "planner"),
        ({"options": {5: 1}}, "planner.5"),
        ({"options": {"mode": 5}}, "planner.mode"),
        ({"options": {"num_iterations": True}}, "planner.num_iterations"),
    ],
)
def test_a_value_of_another_kind_is_refused_with_its_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        plan_request(example_observation(**changes))
    assert caught.value.field == field
    assert len(caught.value.message) < 400
