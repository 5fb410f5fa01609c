"""The encoder's runner: frames to latents, instructions to embeddings, latents to frames.

The same code runs in-process and in Triton. This module knows batches and no plans.
"""

from __future__ import annotations

import threading

import numpy as np

from wavserve.core.types import Tensors
from wavserve.models.networks.encoder import Encoder
from wavserve.models.runners.calls import CancelCheck, not_cancelled, stop_if


class EncoderRunner:
    """Each verb of model `encoder` is a method of `Encoder`; groups are its batch rows."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._lock = threading.Lock()  # a tokenizer allows only one thread at a time

    def run(self, verb: str, inputs: Tensors, cancelled: CancelCheck = not_cancelled) -> Tensors:
        with self._lock:
            return self._run(verb, inputs, cancelled)

    def _run(self, verb: str, inputs: Tensors, cancelled: CancelCheck) -> Tensors:
        stop_if(cancelled)
        match verb:
            case "encode_images":
                return {"latents": self._encoder.encode_images(inputs["pixels"])}
            case "decode_video":
                return {"frames": self._encoder.decode_video(inputs["latents"])}
            case _:
                texts = self._encoder.encode_text([text.tobytes() for text in inputs["text"]])
                return {"embedding": np.stack(texts)}
