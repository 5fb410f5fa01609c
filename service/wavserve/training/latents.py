"""The latents of episodes: encoded once by the trained autoencoder, and kept as files.

A file belongs to one autoencoder and one episode; both are checked. The stages of a run share the files, in turn.
Knows no transformer.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from wavserve.core import files
from wavserve.core.errors import BundleError
from wavserve.core.libero import CAMERAS
from wavserve.training.checkpoint import LOCK, write_whole
from wavserve.training.frames import encode_frames
from wavserve.training.pictures import decoded_frames, to_unit
from wavserve.training.source import Source

_LATENTS = "latents"
_BATCH = 64
"""frames in one call"""


@dataclass(frozen=True, slots=True)
class LatentCache:
    """Files of latents in one folder."""

    folder: Path
    vae_digest: str

    @contextmanager
    def alone(self, report: Callable[[str], None]) -> Iterator[None]:
        """Keeps other stages of the run from the latents, and waits while one has them. Raises BundleError."""
        file = self.folder / LOCK
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = files.lock(file)
            if lock is None:
                report("latents: another stage of this run encodes them; waiting for it")
                lock = files.lock_in_turn(file)
        except OSError as error:
            raise BundleError(f"{self.folder}: expected a folder that can be written: {error}") from error
        try:
            yield
        finally:
            os.close(lock)

    def fill(self, source: Source, vae: Any, report: Callable[[str], None]) -> None:
        """Encodes the episodes that have no file of this autoencoder yet. Only `alone`, as `read`."""
        missing = [index for index in range(source.num_episodes) if self._read(source, index) is None]
        for done, index in enumerate(missing):
            if done % 20 == 0:
                report(f"latents: {done} of {len(missing)} episodes are encoded")
            latents = encode_pictures(vae, source.read(index, pictures=True).pictures).half().contiguous()
            write_whole(self._file(index), save({_LATENTS: latents}, metadata=self._about(source, index)))

    def read(self, source: Source, index: int) -> Tensor:
        """Normalised latents `[P, V, L, C]` float16 of an episode's P pictures, L tokens a frame. `fill` made them."""
        found = self._read(source, index)
        assert found is not None
        return found

    def _read(self, source: Source, index: int) -> Tensor | None:
        """None where there is no file, or one of another autoencoder or episode."""
        expected = self._about(source, index)
        try:
            with safe_open(self._file(index), framework="pt") as file:
                about = file.metadata()
                matches = {name: about.get(name) for name in expected} == expected
                return file.get_tensor(_LATENTS) if matches else None
        except (OSError, SafetensorError):
            return None

    def _about(self, source: Source, index: int) -> dict[str, str]:
        return {"vae": self.vae_digest, "episode": source.episode_digest(index)}

    def _file(self, index: int) -> Path:
        return self.folder / f"{index:06}.safetensors"


@torch.inference_mode()
def encode_pictures(vae: Any, pictures: Mapping[str, Sequence[bytes]]) -> Tensor:
    """Pictures `[P]` by camera as JPEG -> normalised latents `[P, V, L, C]`."""
    jpegs = [pictures[camera] for camera in CAMERAS]
    frames = rearrange(to_unit(decoded_frames(jpegs, np.arange(len(jpegs[0])))[None]), "1 v c p h w -> (p v) c h w")
    raw = torch.cat([encode_frames(vae, each.to(vae.device)) for each in torch.split(frames, _BATCH)])
    mean, std = (rearrange(each, "c -> c 1 1") for each in (vae.latents_mean, vae.latents_std))
    latents: Tensor = rearrange((raw - mean) / std, "(p v) c h w -> p v (h w) c", v=len(jpegs))
    return latents.cpu()
