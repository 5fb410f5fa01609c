"""Experts replayed from graphs against the same experts run directly.

A fake recorder stands for CUDA's. Its replay does what a CUDA graph does: it repeats the captured operations on the
captured tensors.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from einops import rearrange
from torch import Tensor

from wavserve.models.fast.expert import FastAction, FastValue
from wavserve.models.fast.fused import KeyValue
from wavserve.models.fast.graphs import Graphs, Replay
from wavserve.models.flops import Workload
from wavserve.models.networks.plain import Draws, Plain, Scene
from wavserve.models.weights.weights import Models


class Recorder:
    """Counts captures and replays. A capture overwrites the tensors it runs on, as CUDA's warm-up does."""

    def __init__(self) -> None:
        self.captured = 0
        self.replayed = 0

    def __call__(self, run: Callable[[], None]) -> Replay:
        self.captured += 1
        run()

        def replay() -> None:
            self.replayed += 1
            run()

        return replay


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture(scope="module")
def features(plain: Plain, scene: Scene, draws: Draws) -> list[Tensor]:
    return list(plain.imagine(scene, draws.video[0]))


def test_value_samples_from_graphs_equal_those_run_directly(
    odd: Workload, models: Models, draws: Draws, features: list[Tensor], recorder: Recorder
) -> None:
    contexts = [features[0].shape[1]]
    direct = FastValue(models.value, odd.config, odd.chunk, contexts=contexts)
    graphed = FastValue(models.value, odd.config, odd.chunk, contexts=contexts)
    graphed.use_graphs(recorder)
    traced = recorder.captured
    noise = rearrange(draws.value[0], "(n m) t c -> n m t c", m=odd.planner.num_value_samples)

    for rows in (5, 2, 5, 1):
        sliced = [each[:rows] for each in features]
        ours = graphed.integrate(noise[:rows], graphed.cross_kv(sliced.__getitem__), 4)
        oracle = direct.integrate(noise[:rows], direct.cross_kv(sliced.__getitem__), 4)
        assert torch.equal(ours, oracle)

    assert traced == 2
    assert recorder.captured == traced + 3  # five rows need a larger static buffer; the second time is a replay
    assert recorder.replayed == traced + 4 * 4


def test_actions_from_graphs_equal_those_run_directly_for_any_context(
    odd: Workload, models: Models, features: list[Tensor], recorder: Recorder
) -> None:
    contexts = [features[0].shape[1], odd.chunk]
    direct = FastAction(models.action, odd.config, odd.chunk, contexts=contexts)
    graphed = FastAction(models.action, odd.config, odd.chunk, contexts=contexts)
    graphed.use_graphs(recorder)
    generator = torch.Generator().manual_seed(7)

    for start in range(3):
        video = [each[start : start + 2] for each in features]
        value = [torch.randn(2, odd.chunk, odd.config.value.width, generator=generator) for _ in features]
        noise = torch.randn(2, odd.chunk, odd.config.action.in_channels, generator=generator)
        history = torch.randn(2, odd.config.action.in_channels, generator=generator)
        ours, oracle = (
            model.integrate(noise, history, model.cross_kv(video.__getitem__), model.value_kv(value.__getitem__), 4)
            for model in (graphed, direct)
        )
        assert torch.equal(ours, oracle)

    assert recorder.captured == 2  # both while tracing


def test_features_of_every_block_are_computed_without_graphs(
    odd: Workload, models: Models, features: list[Tensor], recorder: Recorder
) -> None:
    value = FastValue(models.value, odd.config, odd.chunk, contexts=[features[0].shape[1]])
    value.use_graphs(recorder)
    before = recorder.replayed

    noise = torch.ones(5, odd.chunk, odd.config.value.in_channels)
    value_features = value.features(noise, value.cross_kv(features.__getitem__))

    assert len(value_features) == len(features)
    assert recorder.replayed == before


def test_contexts_at_other_addresses_get_their_own_graph(recorder: Recorder) -> None:
    def add(x: Tensor, temb: Tensor, contexts: list[list[KeyValue]]) -> None:
        x += temb + contexts[0][0].key

    graphs = Graphs(add, recorder)
    first, second = (KeyValue(torch.full((2, 3), value), torch.zeros(2, 3)) for value in (1.0, 5.0))
    results = []
    for context in (first, second, first):
        x = torch.zeros(2, 3)
        graphs(x, torch.ones(3), [[context]])
        results.append(x.unique().tolist())

    assert results == [[2.0], [6.0], [2.0]]
    assert recorder.captured == 2


def test_the_least_recently_used_graph_is_evicted(recorder: Recorder) -> None:
    def double(x: Tensor, temb: Tensor, contexts: list[list[KeyValue]]) -> None:
        x *= 2

    graphs = Graphs(double, recorder, max_graphs=2)
    for rows in (1, 2, 1, 3, 1, 2):  # the graph of 3 rows evicts that of 2, because that of 1 was just used
        graphs(torch.ones(rows), torch.ones(1), [])

    assert recorder.captured == 4
