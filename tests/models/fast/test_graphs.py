"""Experts replayed from graphs against the same run directly. A recorder of this test stands for CUDA's: what it
returns does what a graph does, the same operations on the tensors of the recording, and no more."""

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
    """Counts recordings and replays. A recording spoils what it runs on, as a warm-up does."""

    def __init__(self) -> None:
        self.recorded = 0
        self.replayed = 0

    def __call__(self, run: Callable[[], None]) -> Replay:
        self.recorded += 1
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


def test_value_samples_from_graphs(
    odd: Workload, models: Models, draws: Draws, features: list[Tensor], recorder: Recorder
) -> None:
    contexts = [features[0].shape[1]]
    direct = FastValue(models.value, odd.config, odd.chunk, contexts=contexts)
    graphed = FastValue(models.value, odd.config, odd.chunk, contexts=contexts)
    graphed.use_graphs(recorder)
    rehearsed = recorder.recorded
    noise = rearrange(draws.value[0], "(n m) t c -> n m t c", m=odd.planner.num_value_samples)

    for rows in (5, 2, 5, 1):
        sliced = [each[:rows] for each in features]
        ours = graphed.integrate(noise[:rows], graphed.cross_kv(sliced.__getitem__), 4)
        oracle = direct.integrate(noise[:rows], direct.cross_kv(sliced.__getitem__), 4)
        assert torch.equal(ours, oracle)

    assert rehearsed == 2
    assert recorder.recorded == rehearsed + 3  # five rows made the place anew; again is a replay
    assert recorder.replayed == rehearsed + 4 * 4


def test_actions_from_graphs_of_several_contents(
    odd: Workload, models: Models, features: list[Tensor], recorder: Recorder
) -> None:
    contexts = [features[0].shape[1], odd.chunk]
    direct = FastAction(models.action, odd.config, odd.chunk, contexts=contexts)
    graphed = FastAction(models.action, odd.config, odd.chunk, contexts=contexts)
    graphed.use_graphs(recorder)
    generator = torch.Generator().manual_seed(7)

    for turn in range(3):
        video = [each[turn : turn + 2] for each in features]
        value = [torch.randn(2, odd.chunk, odd.config.value.width, generator=generator) for _ in features]
        noise = torch.randn(2, odd.chunk, odd.config.action.in_channels, generator=generator)
        history = torch.randn(2, odd.config.action.in_channels, generator=generator)
        ours, oracle = (
            one.integrate(noise, history, one.cross_kv(video.__getitem__), one.value_kv(value.__getitem__), 4)
            for one in (graphed, direct)
        )
        assert torch.equal(ours, oracle)

    assert recorder.recorded == 2  # both in the rehearsal


def test_features_of_every_block_do_without_graphs(
    odd: Workload, models: Models, features: list[Tensor], recorder: Recorder
) -> None:
    value = FastValue(models.value, odd.config, odd.chunk, contexts=[features[0].shape[1]])
    value.use_graphs(recorder)
    before = recorder.replayed

    found = value.features(torch.ones(5, odd.chunk, odd.config.value.in_channels), value.cross_kv(features.__getitem__))

    assert len(found) == len(features)
    assert recorder.replayed == before


def test_contexts_that_lie_elsewhere_are_not_replayed_from_an_old_place(recorder: Recorder) -> None:
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
    assert recorder.recorded == 2


def test_graphs_kept_are_bounded(recorder: Recorder) -> None:
    def double(x: Tensor, temb: Tensor, contexts: list[list[KeyValue]]) -> None:
        x *= 2

    graphs = Graphs(double, recorder, max_graphs=2)
    for rows in (1, 2, 1, 3, 1, 2):  # the third drops two, not the one just used
        graphs(torch.ones(rows), torch.ones(1), [])

    assert recorder.recorded == 4
