"""The spec of a recipe's policy: what its bundle declares.

Knows neither weights nor data.
"""

from __future__ import annotations

from dataclasses import asdict, replace

from wavserve.bundle.checks import check_spec
from wavserve.core.libero import CONTROL_HZ
from wavserve.core.options import merge_options
from wavserve.core.spec import LatentSpec, ModelConfig, PlannerConfig, PolicySpec, VectorSpec
from wavserve.models.weights import presets
from wavserve.training.recipe import Recipe
from wavserve.training.statistics import Statistics

BASE = "tiny"
"""The preset of LIBERO's robot. Cameras, names, units and the text encoder are its own."""
PICTURE_SIZE = 128
"""height and width of its cameras' pictures"""


def policy_spec(recipe: Recipe, statistics: Statistics, notes: str = "") -> PolicySpec:
    """Raises BundleError when the recipe's policy could not be served."""
    base = presets.find(BASE).spec
    options = asdict(recipe.planner)
    mode = options.pop("mode")
    spec = replace(
        base,
        name=recipe.name,
        untrained=False,
        embodiment="libero",
        cameras=tuple(replace(camera, orientation="rotated_180") for camera in base.cameras),
        state=VectorSpec(base.state.names, base.state.units, statistics.state),
        action=replace(
            base.action, vector=VectorSpec(base.action.vector.names, base.action.vector.units, statistics.action)
        ),
        chunk=recipe.chunk,
        model=_model(recipe, base.model),
        latent=_latent(recipe),
        planner=merge_options(PlannerConfig(**options), base.bounds, {"mode": mode}),
        rtc=replace(base.rtc, execution_horizon=min(base.rtc.execution_horizon, recipe.chunk)),
        max_trained_delay=recipe.action.max_delay,
        value_norm=statistics.value,
        notes=notes,
    )
    check_spec(spec)
    return spec


def _model(recipe: Recipe, base: ModelConfig) -> ModelConfig:
    channels, video = recipe.vae.latent_channels, recipe.video
    return replace(
        base,
        video=replace(
            base.video,
            in_channels=channels,
            out_channels=channels,
            num_layers=video.num_layers,
            num_heads=video.num_heads,
            head_dim=video.head_dim,
            max_views=2,
            rope_base=video.rope_base,
        ),
        value=replace(base.value, num_heads=recipe.value.num_heads, head_dim=recipe.value.head_dim),
        action=replace(base.action, num_heads=recipe.action.num_heads, head_dim=recipe.action.head_dim),
    )


def _latent(recipe: Recipe) -> LatentSpec:
    """One memory frame and one future frame."""
    latent = LatentSpec(num_memory_frames=1, num_future_frames=1, height=1, width=1)
    size = PICTURE_SIZE // latent.spatial_ratio
    return replace(latent, height=size, width=size, frame_rate=max(1, round(CONTROL_HZ / recipe.future_stride)))
