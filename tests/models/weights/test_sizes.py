"""Our transformers have the tensor names and sizes of those in the released code. Nothing is allocated."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from wavserve.core.spec import ExpertConfig, ModelConfig, VideoConfig
from wavserve.models.parity.fixtures import read_config, read_fixture
from wavserve.models.weights.weights import shapes


@pytest.mark.parametrize(
    ("action_channels", "value_channels", "num_parameters"), [(15, 10, 2_305_605_785), (28, 17, 2_305_626_285)]
)
def test_the_large_model_has_the_released_number_of_parameters(
    action_channels: int, value_channels: int, num_parameters: int
) -> None:
    config = ModelConfig(
        VideoConfig(128, 128, num_layers=28, num_heads=32, head_dim=64, caption_channels=4096),
        value=ExpertConfig(value_channels, value_channels, num_heads=16, head_dim=32, rope_base=57),
        action=ExpertConfig(action_channels, action_channels, num_heads=16, head_dim=32, rope_base=54),
    )

    ours = shapes(config)

    assert len(ours) == 2420
    assert sum(math.prod(shape) for shape in ours.values()) == num_parameters


def test_names_and_shapes_are_the_official_ones(parity_folder: Path) -> None:
    released = read_fixture(parity_folder, "weights")
    assert released is not None

    ours = shapes(read_config(parity_folder).model)

    assert ours == {name: tuple(tensor.shape) for name, tensor in released.tensors.items()}
