"""Rotary tables and packing, in cases that the parity fixtures do not cover."""

from __future__ import annotations

import pytest
import torch

from wavserve.core.spec import LatentSpec
from wavserve.models.networks.maths import pack, rotary_table, rotate, token_rotary, unpack


@pytest.mark.parametrize(("width", "axes", "num_fixed"), [(40, 3, 4), (64, 3, 4), (48, 3, 0), (28, 1, 0), (4, 3, 4)])
def test_leftover_channels_are_not_rotated(width: int, axes: int, num_fixed: int) -> None:
    table = rotary_table(torch.rand(5, axes), width, 1e4)

    assert table.cos.shape == (5, width)
    assert (table.cos[:, :num_fixed] == 1).all()
    assert (table.sin[:, :num_fixed] == 0).all()
    assert not (table.sin[:, num_fixed:] == 0).any()


def test_an_odd_width_is_refused() -> None:
    with pytest.raises(ValueError, match="even number, got 7"):
        rotary_table(torch.rand(5, 1), 7, 1e4)


def test_rotation_keeps_the_length_of_every_pair() -> None:
    x = torch.randn(2, 9, 28)

    rotated = rotate(x, token_rotary(9, base=54, width=28, theta=1e4))

    assert torch.allclose(rotated.view(2, 9, 14, 2).norm(dim=-1), x.view(2, 9, 14, 2).norm(dim=-1), atol=1e-5)


def test_packing_runs_over_frames_then_rows_then_columns() -> None:
    latent = LatentSpec(1, 1, 2, 3)
    latents = torch.arange(2 * 2 * 2 * 3.0).view(2, 2, 2, 3)

    tokens = pack(latents)

    assert torch.equal(tokens[1 * 6 + 1 * 3 + 2], latents[:, 1, 1, 2])
    assert torch.equal(unpack(tokens, latent), latents)
