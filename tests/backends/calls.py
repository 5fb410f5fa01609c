"""Inputs of calls by the signature table, small and seeded."""

from __future__ import annotations

import numpy as np

from wavserve.core.spec import PolicySpec
from wavserve.core.types import Tensors

N, M = 2, 3
"""video samples of a group, value samples of a video sample"""


def example_inputs(spec: PolicySpec, verb: str, groups: int = 1, *, seed: int = 0, text: bool = True) -> Tensors:
    """Inputs of one call, by the signature table; every group differs."""
    video, latent, camera = spec.model.video, spec.latent, spec.cameras[0]
    frame = (video.in_channels, latent.num_future_frames, latent.height, latent.width)
    memory = (spec.num_views, video.in_channels, latent.num_memory_frames, latent.height, latent.width)
    key = np.array([[seed + g, 0] for g in range(groups)])
    match verb:
        case "encode_images":
            shape = (groups, spec.num_views, camera.height, camera.width, 3)
            return {"pixels": np.random.default_rng(seed).integers(0, 256, shape, np.uint8)}
        case "encode_text":
            return {"text": np.frombuffer(b"lift the cup", np.uint8)[None].repeat(groups, axis=0)}
        case "decode_video":
            return {"latents": seeded((groups, spec.num_views, *frame), seed)}
        case "imagine" | "denoise":
            inputs = {
                "memory": seeded((groups, *memory), seed),
                "mean": seeded((groups, 1, *frame), seed + 1) * 0.1,
                "std": np.ones((groups, 1, *frame), np.float32),
                "text_key": np.arange(groups, dtype=np.uint8)[:, None].repeat(32, axis=1) + np.uint8(seed),
                "noise_key": key,
                "noise_name": np.array([[[0, n] for n in range(N if verb == "imagine" else 1)]] * groups),
                "video_steps" if verb == "imagine" else "flow_steps": np.full((groups, 1), 1, np.int32),
            }
            return inputs | ({"embedding": seeded((groups, 5, video.caption_channels), seed)} if text else {})
        case _:
            raise AssertionError(verb)


def value_inputs(spec: PolicySpec, handles: np.ndarray, rows: int = M, **params: int) -> Tensors:
    groups, samples = handles.shape[:2]
    shape = (groups, spec.chunk, spec.model.value.in_channels)
    names = np.arange(groups * samples * rows).reshape(groups, samples, rows)
    return {
        "handles": handles,
        "mean": np.zeros(shape, np.float32),
        "std": np.ones(shape, np.float32),
        "noise_key": np.array([[7, 0]] * groups),
        "noise_name": np.stack([np.zeros_like(names), names], axis=-1),
    } | {name: np.full((groups, 1), value, np.int32) for name, value in params.items()}


def action_inputs(spec: PolicySpec, handles: np.ndarray) -> Tensors:
    groups = len(handles)
    return {
        "handles": handles,
        "history": seeded((groups, spec.model.action.in_channels), 3),
        "noise_key": np.array([[7, 0]] * groups),
        "noise_name": np.array([[-1, 0]] * groups),
        "flow_steps": np.full((groups, 1), 2, np.int32),
    }


def guided_inputs(spec: PolicySpec, handles: np.ndarray) -> Tensors:
    """A decode that a left-over guides; every group has weights of its own."""
    groups, action_dim = len(handles), spec.action.vector.dim
    weights = np.stack([np.linspace(1, 0, spec.chunk, dtype=np.float32) ** (1 + g) for g in range(groups)])
    return {
        **action_inputs(spec, handles),
        "left_over": seeded((groups, spec.chunk, action_dim), 11),
        "weights": weights,
        "max_weight": np.full((groups, 1), 10, np.float32),
    }


def prefix_inputs(spec: PolicySpec, handles: np.ndarray) -> Tensors:
    """A decode after a clean prefix; every group has a prefix of its own length, the first has none."""
    inputs = dict(guided_inputs(spec, handles))
    del inputs["weights"], inputs["max_weight"]
    return {**inputs, "num_frozen": np.arange(len(handles))[:, None]}


def denoise_inputs(spec: PolicySpec) -> Tensors:
    video, latent = spec.model.video, spec.latent
    frame = (video.in_channels, latent.num_future_frames, latent.height, latent.width)
    memory = (1, spec.num_views, video.in_channels, latent.num_memory_frames, latent.height, latent.width)
    return {
        "memory": seeded(memory, 0),
        "mean": np.zeros((1, 1, *frame), np.float32),
        "std": np.ones((1, 1, *frame), np.float32),
        "text_key": np.zeros((1, 32), np.uint8),
        "noise_key": np.zeros((1, 2), np.int64),
        "noise_name": np.zeros((1, 1, 2), np.int64),
        "flow_steps": np.ones((1, 1), np.int32),
        "embedding": seeded((1, 5, video.caption_channels), 0),
    }


def seeded(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
