"""The objectives: what they count, what stays frozen, and the clean prefix of real-time chunking."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.training import synthetic
from tests.training.toy import toy_recipe
from wavserve.models.networks.layers import Context
from wavserve.models.networks.video import VideoOutput
from wavserve.training.action_loss import ActionObjective
from wavserve.training.initial import initial_models
from wavserve.training.network import Network, noised
from wavserve.training.recipe import PlannerRecipe, Recipe
from wavserve.training.samples import Batch, Pool, Sampler, joined
from wavserve.training.spec import policy_spec
from wavserve.training.statistics import measure
from wavserve.training.value_loss import ValueObjective
from wavserve.training.video_loss import VideoObjective

DATA = synthetic.recipe(size=128)
EPISODES = [synthetic.episode(DATA, task, 0) for task in DATA.tasks]
STATISTICS = measure(EPISODES)


def objective(kind: Any, recipe: Recipe, failures: bool = False) -> Any:
    spec = policy_spec(recipe, STATISTICS)
    sampler = Sampler(spec, STATISTICS, recipe.future_stride)
    generator = torch.Generator().manual_seed(0)
    made = []
    for task, whole in enumerate(EPISODES):
        episode = dataclasses.replace(whole, info=dataclasses.replace(whole.info, success=not failures))
        latents = torch.randn(len(episode.picture_steps), 2, 16, recipe.vae.latent_channels, generator=generator)
        made.append(sampler.of(episode, latents.half(), task))
    text = Context(torch.randn(2, 5, 64, generator=generator), torch.zeros(2, 5))
    pool = Pool(joined(made), text, torch.device("cpu"))
    network = Network.of(spec, initial_models(spec.model, 0), "cpu")
    return kind(network, (pool, pool), STATISTICS.tensors(), recipe)


def gradients(made: Any) -> dict[str, Tensor]:
    made.losses(0)["loss"].backward()
    return {
        f"{part}.{name}": p.grad
        for part, module in made.modules().items()
        for name, p in module.named_parameters()
        if p.grad is not None and p.grad.abs().sum() > 0
    }


def test_the_video_stage_trains_all_of_the_video_transformer() -> None:
    made = objective(VideoObjective, toy_recipe())
    trained = gradients(made)
    assert set(made.modules()) == {"video"}
    assert len(trained) == len(list(made.modules()["video"].named_parameters()))


def test_the_value_stage_leaves_the_video_transformer_as_it_is() -> None:
    made = objective(ValueObjective, toy_recipe())
    assert set(made.modules()) == {"value"}
    assert gradients(made)
    assert all(p.grad is None for p in made._network.models.video.parameters())


def test_the_last_stage_trains_all_three_and_keeps_the_value_loss_on() -> None:
    made = objective(ActionObjective, toy_recipe())
    trained = gradients(made)
    assert {name.partition(".")[0] for name in trained} == {"video", "value", "action"}
    assert any(name.startswith("value.proj_out") for name in trained)
    assert any("attn3.to_out" in name for name in trained), "the action expert begins to hear the value expert"


def test_failures_teach_values_and_no_actions() -> None:
    made = objective(ActionObjective, toy_recipe(), failures=True)
    terms = made.losses(0)
    assert terms["action"].item() == terms["states"].item() == 0.0
    assert terms["value"].item() > 0
    assert torch.isfinite(terms["loss"])
    assert not {"action", "gripper"} & made.evaluate().keys(), "an error of no actions is not 0"
    assert {"action", "gripper"} <= objective(ActionObjective, toy_recipe()).evaluate().keys()


@pytest.mark.parametrize(("max_delay", "share", "expected"), [(3, 1.0, {1, 2, 3}), (3, 0.0, {0}), (0, 1.0, {0})])
def test_the_clean_prefix_is_as_long_as_the_recipe_says(max_delay: int, share: float, expected: set[int]) -> None:
    recipe = toy_recipe()
    action = dataclasses.replace(recipe.action, max_delay=max_delay, prefix_share=share)
    made = objective(ActionObjective, dataclasses.replace(recipe, action=action))
    prefix = made._prefix(made._pool.draw((0,), 16), draws())
    assert set(prefix.num_frozen.tolist()) == expected


def test_a_clean_prefix_is_given_and_not_learnt() -> None:
    """Whatever the network says of a clean action, the loss is the same."""
    recipe = toy_recipe()
    action = dataclasses.replace(recipe.action, max_delay=recipe.chunk - 1, prefix_share=1.0)
    made = objective(ActionObjective, dataclasses.replace(recipe, action=action))
    seen: list[tuple[Tensor, Tensor]] = []
    network, error = made._network, 0.0

    class Seeing(Network):
        def action(self, samples: Tensor, sigma: Tensor, contexts: Any, state: Tensor, is_clean: Any = None) -> Tensor:
            seen.append((samples, is_clean))
            return network.action(samples, sigma, contexts, state, is_clean) + error * is_clean.unsqueeze(-1)

    made._network = Seeing(network.spec, network.models, network.rotary)
    terms = made.losses(0)
    [(samples, is_clean)] = seen
    assert is_clean.any()
    assert not is_clean.all()
    clean = samples[is_clean]
    assert (clean[:, 7:] == 0).all(), "a clean token has no predicted state"
    batch = made._pool.draw((recipe.seed, 7, 0), action.optimisation.batch_size)
    actions = batch.samples.actions.unsqueeze(1).expand_as(samples)
    assert torch.equal(clean[:, :7], actions[is_clean][:, :7]), "and its actions are the data's"
    error = 1e3
    assert {name: each.item() for name, each in made.losses(0).items()} == {n: each.item() for n, each in terms.items()}


def test_experts_learn_on_the_future_as_it_is_at_the_last_of_several_steps() -> None:
    made = objective(ActionObjective, toy_recipe())
    batch, network = made._pool.draw((0,), 16), made._network
    noise = torch.randn(batch.samples.future.shape, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        one = network.on_true_future(batch, noise, (1,), draws()).velocity
        assert torch.equal(one, network.video(batch, noise, torch.ones(1)).velocity), "on pure noise"
        four = network.video(batch, noised(batch.samples.future, noise, torch.tensor([0.25])), torch.tensor([0.25]))
        at_four = network.on_true_future(batch, noise, (4,), draws()).velocity
        torch.testing.assert_close(at_four, four.velocity, atol=1e-5, rtol=0)  # a level a sample, and one for all
        drawn = network.on_true_future(batch, noise, (1, 4), draws()).velocity
    is_one, is_four = (torch.isclose(drawn, each, atol=1e-5).flatten(1).all(1) for each in (one, four.velocity))
    assert is_one.any()
    assert is_four.any()
    assert (is_one ^ is_four).all(), "one or the other, for each sample"


@pytest.mark.parametrize("kind", [ValueObjective, ActionObjective])
def test_both_experts_learn_so(kind: Any) -> None:
    recipe = dataclasses.replace(toy_recipe(), video_steps=(4,), planner=PlannerRecipe(num_video_steps=4))
    made = objective(kind, recipe)
    network, read = made._network, []

    class Seeing(Network):
        def video(self, batch: Batch, future: Tensor, sigma: Tensor) -> VideoOutput:
            read.append(sigma)
            return network.video(batch, future, sigma)

    made._network = Seeing(network.spec, network.models, network.rotary)
    made.losses(0)
    assert (read[0] == 0.25).all(), "the first forward is the one whose features are read"


@pytest.mark.parametrize("kind", [VideoObjective, ValueObjective, ActionObjective])
def test_the_same_step_gives_the_same_loss(kind: Any) -> None:
    first, second = (objective(kind, toy_recipe()) for _ in range(2))
    second.losses(7)  # what came before does not matter
    assert first.losses(3)["loss"].item() == second.losses(3)["loss"].item()
    assert first.losses(3)["loss"].item() != first.losses(4)["loss"].item()


def draws() -> Any:
    from wavserve.training.draws import Draws

    return Draws(0, "test", 0, torch.device("cpu"))
