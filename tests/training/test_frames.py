"""Single frames by two-dimensional convolutions equal the autoencoder's own forward."""

from __future__ import annotations

import torch

from wavserve.training.frames import decode_frames, encode_frames
from wavserve.training.recipe import Optimisation, VaeRecipe
from wavserve.training.vae import initial_vae

RECIPE = VaeRecipe(
    optimisation=Optimisation(num_steps=1, batch_size=1, learning_rate=1e-3),
    latent_channels=8,
    encoder_blocks=(8, 12, 16, 16),
    decoder_blocks=(8, 12, 16, 16),
)


def test_single_frames_equal_the_autoencoders_own_forward() -> None:
    vae = initial_vae(RECIPE, seed=1).eval()
    with torch.no_grad():
        for parameter in vae.parameters():  # biases and gains that the initial weights leave at 0 or small
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
        frames = torch.rand(3, 3, 64, 96, generator=torch.Generator().manual_seed(2)) * 2 - 1
        latents = encode_frames(vae, frames)
        own = vae.encode(frames.unsqueeze(2)).latent_dist.mode()
        torch.testing.assert_close(latents, own.squeeze(2), rtol=0, atol=1e-4)
        decoded = vae.decode(own, return_dict=False)[0]
        torch.testing.assert_close(decode_frames(vae, own.squeeze(2)), decoded.squeeze(2), rtol=0, atol=1e-4)


def test_the_first_frame_of_a_clip_is_encoded_as_if_it_were_alone() -> None:
    vae = initial_vae(RECIPE, seed=1).eval()
    clip = torch.rand(2, 3, 9, 64, 64, generator=torch.Generator().manual_seed(2)) * 2 - 1
    with torch.no_grad():
        first = vae.encode(clip).latent_dist.mode()[:, :, 0]
        torch.testing.assert_close(first, encode_frames(vae, clip[:, :, 0]), rtol=0, atol=1e-4)
