"""What a policy learns from an episode: which labels count, what follows what, and how batches are drawn."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from tests.training import synthetic
from tests.training.toy import toy_recipe
from wavserve.core.normalise import Normaliser
from wavserve.models.networks.layers import Context
from wavserve.training.episode import Episode
from wavserve.training.pictures import clip_pictures
from wavserve.training.samples import Pool, Sampler, Samples, joined, padded
from wavserve.training.spec import policy_spec
from wavserve.training.statistics import Statistics, measure

DATA = synthetic.recipe(size=128)
EPISODE = synthetic.episode(DATA, DATA.tasks[0], number=0)
"""40 steps with a picture every 4; steps 10 to 14 are pushed"""
STATISTICS = measure([EPISODE])
SPEC = policy_spec(toy_recipe(), STATISTICS)


def samples_of(episode: Episode, task: int = 0) -> Samples:
    latents = torch.arange(len(episode.picture_steps)).half()[:, None, None, None].expand(-1, 2, 16, 8)
    return Sampler(SPEC, STATISTICS, future_stride=2).of(episode, latents, task)


def test_a_sample_is_what_a_plan_sees_and_what_followed() -> None:
    samples, normaliser = samples_of(EPISODE), Normaliser(SPEC)
    assert len(samples.task) == 10
    state = torch.from_numpy(normaliser.history(EPISODE.state[8])[7:])
    assert torch.equal(samples.state[2], state)
    after = torch.from_numpy(normaliser.history(EPISODE.state[9])[7:])
    assert torch.equal(samples.actions[2, 0, 7:], after)
    assert torch.equal(samples.values[2, 0, :8], after)
    back = normaliser.actions(samples.actions[2].numpy(), EPISODE.state[8])
    np.testing.assert_allclose(back, EPISODE.action[8:24], atol=1e-6)
    expected = STATISTICS.values(EPISODE.reward[8:24], EPISODE.returns[8:24])
    assert torch.equal(samples.values[2, :, 8:], expected)


def test_the_future_is_the_picture_sixteen_steps_later() -> None:
    """Also where the last picture stands for what came after the end."""
    future = samples_of(EPISODE).future[:, 0, 0, 0].tolist()
    assert future == [4, 5, 6, 7, 8, 9, 9, 9, 9, 9]
    assert clip_pictures(EPISODE, 2)[1].tolist() == [1, 1, 2, 2, 3, 3, 4, 4, 5]


@pytest.mark.parametrize(
    ("step", "num_labels"),
    [
        (0, 11),  # the label of step 10 answers what came before the push
        (8, 3),
        (12, 1),  # amid the push
        (16, 16),
        (32, 8),  # the episode ends
    ],
)
def test_labels_after_a_push_and_after_the_end_do_not_count(step: int, num_labels: int) -> None:
    counted = samples_of(EPISODE).is_label[step // 4]
    assert counted.tolist() == [True] * num_labels + [False] * (16 - num_labels)


def test_failures_and_policies_are_not_imitated() -> None:
    failure = synthetic.episode(DATA, DATA.tasks[0], number=1, kind="failure")
    assert not samples_of(failure).is_label.any()
    mixed = dataclasses.replace(EPISODE, is_expert=np.arange(40) >= 20)
    assert samples_of(mixed).is_label[5].all()
    assert not samples_of(mixed).is_label[0].any()
    assert not samples_of(mixed).is_label[4].any(), "the expert answers what the policy did before in this chunk"


def test_a_batch_has_equally_many_samples_of_each_task_and_their_text() -> None:
    others = [samples_of(EPISODE, task=2)] * 5
    samples = joined([samples_of(EPISODE), *others])
    text = Context(torch.arange(3.0)[:, None, None].expand(3, 4, 5), torch.zeros(3, 4))
    pool = Pool(samples, text, torch.device("cpu"))
    batch = pool.draw((0, 1), 8)
    assert batch.samples.task.tolist() == [0] * 4 + [2] * 4
    assert batch.text.tokens[:, 0, 0].tolist() == [0.0, 2.0]
    assert batch.samples.memory.dtype == torch.float32
    assert torch.equal(batch.samples.state, pool.draw((0, 1), 8).samples.state)
    assert not torch.equal(batch.samples.memory, pool.draw((0, 2), 8).samples.memory)


def test_texts_of_different_lengths_are_padded_and_masked() -> None:
    context = padded([torch.ones(2, 5), torch.ones(4, 5)], masked=-1e4)
    assert context.mask is not None
    assert context.mask.tolist() == [[0, 0, -1e4, -1e4], [0, 0, 0, 0]]
    assert context.tokens[0, 2:].abs().sum() == 0


def test_statistics_cover_nearly_all_and_never_divide_by_nothing() -> None:
    """The synthetic robot never turns its wrist."""
    assert (STATISTICS.state_high - STATISTICS.state_low).min() >= 0.0199
    low, high = STATISTICS.action_low.numpy(), STATISTICS.action_high.numpy()
    inside = ((EPISODE.action >= low) & (EPISODE.action <= high)).mean()
    assert 0.9 < inside < 1.0


def test_returns_are_standardised_and_keep_their_order() -> None:
    raw = np.linspace(-5, 5, 11, dtype=np.float32)
    squeezed = STATISTICS.values(raw, raw)
    assert (squeezed.diff(dim=0) > 0).all()


def test_statistics_go_into_a_checkpoint_and_back() -> None:
    again = Statistics.of(STATISTICS.tensors())
    for name, tensor in STATISTICS.tensors().items():
        assert torch.equal(again.tensors()[name], tensor)
