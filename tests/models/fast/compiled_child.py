"""The module that `test_compiling` runs in a separate process: compiled fast paths beside the uncompiled ones.

A separate process, because compiled code stays in a process and torch's compiler emits warnings. Arguments: the models.
Prints one JSON object: the largest difference per model, the number of compilations, and the hits and misses of the
cache on disk.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor
from torch._dynamo.utils import counters

from wavserve.core.spec import ExpertConfig, LatentSpec, ModelConfig, VideoConfig
from wavserve.models.fast.compiling import compiled
from wavserve.models.fast.expert import FastAction, FastValue
from wavserve.models.fast.video import FastVideo
from wavserve.models.runners.loading import DYNAMIC_LENGTH, DYNAMIC_ROWS
from wavserve.models.weights.weights import Models, random_models

CONFIG = ModelConfig(
    VideoConfig(6, 6, num_layers=2, num_heads=2, head_dim=8, caption_channels=10),
    value=ExpertConfig(5, 5, num_heads=2, head_dim=6, rope_base=57),
    action=ExpertConfig(4, 4, num_heads=2, head_dim=8, rope_base=54),
)
LATENT, VIEWS, CHUNK = LatentSpec(2, 2, 2, 2), 2, 4
TOKENS = VIEWS * LATENT.num_tokens

Forward = Callable[[], Tensor]


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def video(model: FastVideo) -> Iterator[Tensor]:
    """Varies the numbers of groups and samples and the instruction length (one token included), with and without
    features."""
    for prompts, samples in (([4], 1), ([5], 6), ([7, 3], 2), ([9], 3), ([1], 2)):
        texts = [model.text_kv(normal(prompt, 10)) for prompt in prompts]
        inputs = normal(len(prompts), VIEWS, 6, 2, 2, 2), normal(len(prompts), samples, VIEWS, 6, 2, 2, 2), 0.7, texts
        features: list[Tensor] = []
        model.run(*inputs, lambda layer, x, features=features: features.append(x.clone()))  # type: ignore[misc]
        yield from features
        velocity = model.run(*inputs, velocity=True)
        assert velocity is not None
        yield velocity


def value(model: FastValue) -> Iterator[Tensor]:
    for rows, values in ((1, 3), (4, 5), (1, 1), (3, 3), (2, 1)):
        kv = model.cross_kv(lambda layer, rows=rows: normal(rows, TOKENS, 16))  # type: ignore[misc]
        yield model.velocity(normal(rows, values, CHUNK, 5), 0.7, kv)
        yield from model.features(normal(rows, CHUNK, 5), kv)


def action(model: FastAction) -> Iterator[Tensor]:
    for rows in (1, 4, 2):
        video_kv = model.cross_kv(lambda layer, rows=rows: normal(rows, TOKENS, 16))  # type: ignore[misc]
        value_kv = model.value_kv(lambda layer, rows=rows: normal(rows, CHUNK, 12))  # type: ignore[misc]
        for kv, history in ((value_kv, normal(rows, 4)), (None, None)):
            yield model.velocity(normal(rows, CHUNK, 4), 0.7, history, video_kv, kv)


def makers(models: Models) -> Iterator[tuple[str, Callable[..., FastVideo | FastValue | FastAction], int]]:
    yield "video", partial(FastVideo, models.video, CONFIG, LATENT, VIEWS), DYNAMIC_LENGTH
    yield "value", partial(FastValue, models.value, CONFIG, CHUNK, contexts=[TOKENS]), DYNAMIC_ROWS
    yield "action", partial(FastAction, models.action, CONFIG, CHUNK, contexts=[TOKENS, CHUNK]), DYNAMIC_ROWS


def main() -> None:
    torch.set_num_threads(2)
    forwards: dict[str, Callable[..., Iterator[Tensor]]] = {"video": video, "value": value, "action": action}
    differences = {}
    for name, make, dynamic_axis in makers(random_models(CONFIG, seed=3)):
        if name not in sys.argv:
            continue
        model = compiled(name, make, dynamic_axis, torch.device("cpu"), required=False)
        pairs = zip(forwards[name](model), forwards[name](make()), strict=True)
        differences[name] = max((ours - oracle).abs().max().item() for ours, oracle in pairs)
    cache = counters["inductor"]
    report = {
        "differences": differences,
        "graphs": counters["stats"]["unique_graphs"],
        "cache_hits": cache["fxgraph_cache_hit"],
        "cache_misses": cache["fxgraph_cache_miss"],
    }
    json.dump(report, sys.stdout)


if __name__ == "__main__":
    main()
