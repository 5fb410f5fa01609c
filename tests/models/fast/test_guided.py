"""A decode that continues a left-over: the fast path against the plain one, which is its oracle."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from wavserve.core.rtc import prefix_weights
from wavserve.models.fast.expert import FastAction
from wavserve.models.fast.guided import GuidedAction
from wavserve.models.flops import Workload
from wavserve.models.networks.guidance import Guidance, Prefix
from wavserve.models.networks.plain import Draws, Plain, Scene
from wavserve.models.weights.weights import Models, random_models

ROWS, NUM_STEPS, STATE_DIM = 3, 4, 14


@dataclass(frozen=True)
class Decode:
    """The inputs of a decode of ROWS rows, and the left-over of each."""

    video: list[Tensor]
    value: list[Tensor]
    noise: Tensor
    history: Tensor
    left_over: Tensor

    def rows(self, chosen: slice) -> Decode:
        features = ([each[chosen] for each in features] for features in (self.video, self.value))
        return Decode(*features, self.noise[chosen], self.history[chosen], self.left_over[chosen])


@pytest.fixture(scope="module")
def decode(odd: Workload, plain: Plain, scene: Scene, draws: Draws) -> Decode:
    video = list(plain.imagine(scene, draws.video[0][:ROWS]))
    value = list(plain.value_features(video, draws.value[0][:ROWS]))
    generator = torch.Generator().manual_seed(4)
    channels = odd.config.action.in_channels
    noise, left_over = (torch.randn(ROWS, odd.chunk, width, generator=generator) for width in (channels, STATE_DIM))
    return Decode(video, value, noise, scene.history.expand(ROWS, -1), left_over)


def guidance(odd: Workload, decode: Decode, delay: int = 3, max_weight: float = 10.0) -> Guidance:
    rows = len(decode.noise)
    weights = torch.from_numpy(prefix_weights("LINEAR", delay, 10, odd.chunk)).expand(rows, -1)
    return Guidance(decode.left_over, weights, torch.full((rows,), max_weight))


def guided(model: GuidedAction, decode: Decode, by: Guidance) -> Tensor:
    """As the runner does: in inference mode, on tensors that were made there."""
    with torch.inference_mode():
        reads = decode.video.__getitem__, decode.value.__getitem__
        return model.integrate(decode.noise.clone(), decode.history.clone(), reads, NUM_STEPS, by).clone()


def test_guided_actions_agree_with_the_oracle(
    odd: Workload, models: Models, plain: Plain, scene: Scene, decode: Decode
) -> None:
    by = guidance(odd, decode)
    features = decode.video, decode.value
    oracle = plain.integrate_action(scene, features, decode.noise, NUM_STEPS, continued=by)
    free = plain.integrate_action(scene, features, decode.noise, NUM_STEPS)

    ours = guided(GuidedAction(models.action, odd.chunk), decode, by)

    torch.testing.assert_close(ours, oracle.clone(), atol=1e-4, rtol=0)
    assert (ours - free).abs().max() > 0.1


def test_without_weight_a_guided_decode_is_a_free_one(odd: Workload, models: Models, decode: Decode) -> None:
    fast = FastAction(models.action, odd.config, odd.chunk)
    contexts = fast.cross_kv(decode.video.__getitem__), fast.value_kv(decode.value.__getitem__)
    free = fast.integrate(decode.noise, decode.history, *contexts, NUM_STEPS)

    ours = guided(GuidedAction(models.action, odd.chunk), decode, guidance(odd, decode, max_weight=0.0))

    torch.testing.assert_close(ours, free.clone(), atol=1e-5, rtol=0)


def test_rows_of_a_guided_decode_do_not_depend_on_each_other(odd: Workload, models: Models, decode: Decode) -> None:
    model = GuidedAction(models.action, odd.chunk)
    together = guided(model, decode, guidance(odd, decode))
    for row in range(ROWS):
        own = decode.rows(slice(row, row + 1))
        torch.testing.assert_close(guided(model, own, guidance(odd, own)), together[row : row + 1], atol=1e-5, rtol=0)


def test_actions_after_a_prefix_agree_with_the_oracle(
    odd: Workload, models: Models, plain: Plain, scene: Scene, decode: Decode
) -> None:
    prefix = Prefix(decode.left_over, torch.tensor([0, 2, 7]))
    features = decode.video, decode.value
    oracle = plain.integrate_action(scene, features, decode.noise, NUM_STEPS, continued=prefix)
    free = plain.integrate_action(scene, features, decode.noise, NUM_STEPS)
    fast = FastAction(models.action, odd.config, odd.chunk)
    contexts = fast.cross_kv(decode.video.__getitem__), fast.value_kv(decode.value.__getitem__)

    ours = fast.integrate_after(prefix, decode.noise, decode.history, contexts, NUM_STEPS)

    torch.testing.assert_close(ours, oracle, atol=1e-4, rtol=0)
    torch.testing.assert_close(ours[0], free[0], atol=1e-4, rtol=0)
    assert torch.equal(ours[2, :7, :STATE_DIM], decode.left_over[2, :7])
    assert (ours - free)[2, 7:].abs().max() > 1e-2


def test_a_guided_decode_in_bfloat16_stays_near_float32(odd: Workload, models: Models, decode: Decode) -> None:
    half = random_models(odd.config, seed=3, dtype=torch.bfloat16)
    by = guidance(odd, decode)

    ours = guided(GuidedAction(half.action, odd.chunk), decode, by)

    assert ours.dtype == torch.float32
    error = (ours - guided(GuidedAction(models.action, odd.chunk), decode, by)).abs()
    assert error.mean() < 0.1
    assert error.max() > 1e-4, "the weights are rounded"
