"""Recipes: the shipped one can be served, mistakes are named, and a digest changes with what weights depend on."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest

from tests.training import synthetic
from tests.training.toy import longer, toy_recipe, write_recipe
from wavserve.core.errors import BundleError
from wavserve.models.weights.weights import shapes
from wavserve.training.recipe import STAGES, Recipe, load_recipe
from wavserve.training.spec import PICTURE_SIZE, policy_spec
from wavserve.training.statistics import Statistics, measure
from wavserve.training.vae import initial_vae

SHIPPED = sorted((Path(__file__).parents[2] / "policies").glob("*/recipe.toml"))
MAX_BYTES = 25_000_000
"""of a shipped bundle, in 16 bits"""


@pytest.fixture(scope="module")
def statistics() -> Statistics:
    data = synthetic.recipe()
    return measure([synthetic.episode(data, data.tasks[0], 0)])


def test_data_without_a_solved_episode_have_no_statistics() -> None:
    data = synthetic.recipe(1)
    with pytest.raises(BundleError, match="expected an episode that the expert solved, got none among 1"):
        measure([synthetic.episode(data, data.tasks[0], 0, kind="failure")])


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.parent.name)
def test_a_shipped_recipe_makes_a_policy_that_fits(path: Path, statistics: Statistics) -> None:
    recipe = load_recipe(path)
    spec = policy_spec(recipe, statistics)
    transformers = sum(math.prod(shape) for shape in shapes(spec.model).values())
    vae = sum(p.numel() for p in initial_vae(recipe.vae, 0).parameters())
    assert 2 * (transformers + vae) < MAX_BYTES
    assert spec.name == path.parent.name
    assert {(camera.height, camera.width) for camera in spec.cameras} == {(PICTURE_SIZE, PICTURE_SIZE)}


def test_the_shipped_recipe_was_found() -> None:
    assert SHIPPED


def test_a_recipe_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert load_recipe(write_recipe(tmp_path / "recipe.toml", toy_recipe())) == toy_recipe()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed = 0", "sead = 0", "sead: expected no such key"),
        ("seed = 0", "seed = -1", "seed: expected a number from 0 on, got -1"),
        ("seed = 0", 'seed = "0"', "seed: expected a whole number, got '0'"),
        ("num_layers = 2", "num_layers = 0", "video.num_layers: expected a number from 1 on, got 0"),
        ("learning_rate = 0.002", "learning_rate = nan", "vae.optimisation.learning_rate: expected a finite number"),
        ("learning_rate = 0.002", "learning_rate = 0.0", "learning_rate: expected a number above 0, got 0.0"),
        ("ema = 0.995", "ema = 1.0", "vae.optimisation.ema: expected a number from 0 on, below 1, got 1.0"),
        ("ema = 0.995", "ema = 1.5", "vae.optimisation.ema: expected a number from 0 on, below 1, got 1.5"),
        ("decay_from = 0.3", "decay_from = 1.1", "decay_from: expected a number from 0 to 1, got 1.1"),
        (
            "image_dropout = 0.08",
            "image_dropout = -0.1",
            "video.image_dropout: expected a number from 0 to 1, got -0.1",
        ),
        (
            "noisiest_share = 0.25",
            "noisiest_share = 2.0",
            "video.noisiest_share: expected a number from 0 to 1, got 2.0",
        ),
        ("prefix_share = 0.3", "prefix_share = 1.5", "action.prefix_share: expected a number from 0 to 1, got 1.5"),
        ("noise_bias = 1.3", "noise_bias = 0.0", "action.noise_bias: expected a number above 0, got 0.0"),
        ("max_gradient = 1.0", "max_gradient = inf", "vae.optimisation.max_gradient: expected a finite number"),
        (
            "num_heads = 2\nhead_dim = 16",
            "num_heads = 1\nhead_dim = 15",
            "video.num_heads .* expected an even number, got 15",
        ),
        ("max_delay = 3", "max_delay = 16", "action.max_delay: expected less than chunk, got 16"),
        ("video_steps = [1]", "video_steps = [2, 0]", r"video_steps: expected numbers from 1 on, got \[2, 0\]"),
        ("video_steps = [1]", "video_steps = []", r"video_steps: expected numbers from 1 on, got \[\]"),
        ("video_steps = [1]", "video_steps = [2, 4]", r"planner.num_video_steps: expected one of .*\[2, 4\], got 1"),
        ("[video]", "[vidio]", "video.num_layers: expected a value, got nothing"),
        ('name = "toy"', "name = ", "expected a TOML file"),
    ],
)
def test_mistakes_are_named(old: str, new: str, message: str, tmp_path: Path) -> None:
    path = write_recipe(tmp_path / "recipe.toml", toy_recipe())
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(BundleError, match=message):
        load_recipe(path)


def test_a_missing_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"nothing.toml: expected a TOML file"):
        load_recipe(tmp_path / "nothing.toml")


def changed(**changes: object) -> list[bool]:
    """For each stage, whether its digest changes."""
    return digests_differ(dataclasses.replace(toy_recipe(), **changes))  # type: ignore[arg-type]


def digests_differ(other: Recipe) -> list[bool]:
    return [other.digest(stage) != toy_recipe().digest(stage) for stage in STAGES]


def test_a_stages_digest_depends_on_it_and_on_those_before_it() -> None:
    assert digests_differ(toy_recipe()) == [False] * 4
    assert digests_differ(longer(toy_recipe(), "vae", 50)) == [True] * 4
    assert digests_differ(longer(toy_recipe(), "value", 50)) == [False, False, True, True]
    assert changed(seed=1) == [True] * 4
    assert changed(video_steps=(1, 2)) == [False, False, True, True]
    assert changed(notes="others", name="other", evaluate_every=7) == [False] * 4
