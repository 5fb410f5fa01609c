"""What moves a plan: how much its actions and its score vary with the noise of the future, of the value, of the action.

Planning chooses among noises of futures and of values. It can change what a robot does by no more than these move the
actions, and it can tell futures apart by no more than they move the score. Measured on held-out observations with the
forwards of training, which are those of serving. Knows no simulator.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wavserve.bundle import bundle
from wavserve.core.files import write_whole
from wavserve.core.normalise import Normaliser, action_range
from wavserve.core.types import Array
from wavserve.models.networks import flow
from wavserve.training.action_loss import PlanNoise, planned
from wavserve.training.held_out import NUM_COMPARED, HeldOut, action_error, read
from wavserve.training.initial import named_generator
from wavserve.training.network import Network
from wavserve.training.observed import network_of, observed
from wavserve.training.samples import Batch

HELD_OUT_FILE = "held-out.safetensors"
"""beside a bundle, where the policy has held-out observations"""
NUM_DRAWS = 8
SOURCES = ("video", "value", "action")
"""The noises of a plan, by the names of their streams."""
ALL = "all"


@dataclass(frozen=True, slots=True)
class Spread:
    """What varies with one noise while the others stay. Standard deviations, the mean over observations."""

    varied: str
    """one of SOURCES, or `all`"""
    actions: float
    """of the first actions but the gripper, as a fraction of half of each one's range"""
    score: float | None
    """of one value sample's score in mode `mean`, in the model's units; None: the action's noise comes after it"""


@dataclass(frozen=True, slots=True)
class Spreads:
    """All of them, beside the error that they are part of."""

    num_observations: int
    num_video_steps: int
    """by which futures were denoised before the experts read them"""
    action_error: float
    """mean absolute error of the first actions to the expert's, as a fraction of half of each one's range"""
    spreads: tuple[Spread, ...]


def spreads_on_file(file: Path, bundle_folder: Path) -> Spreads | None:
    """What is on file, or what is measured now, which then goes on file. None: no held-out observations."""
    if not file.exists():
        if not (held_out := bundle_folder / HELD_OUT_FILE).exists():
            return None
        write_whole(file, json.dumps(asdict(measured(bundle_folder, read(held_out))), indent=2).encode())
    table = json.loads(file.read_bytes())
    return Spreads(**{**table, "spreads": tuple(Spread(**each) for each in table["spreads"])})


@torch.inference_mode()
def measured(folder: Path, held_out: HeldOut, num_video_steps: int | None = None) -> Spreads:
    """Of the policy in a folder. `num_video_steps`: None for the policy's own."""
    spec = bundle.load_spec(folder)
    video_steps = num_video_steps or spec.planner.num_video_steps
    network, normaliser = network_of(folder, spec), Normaliser(spec)
    norm = spec.action.vector.norm
    halves = (action_range(norm) / 2).astype(np.float32)
    actions: dict[str, list[Array]] = {varied: [] for varied in (*SOURCES, ALL)}
    scores: dict[str, list[Array]] = {varied: [] for varied in SOURCES[:2]}
    for state, one in zip(held_out.state, observed(folder, spec, held_out), strict=True):
        batch = Batch(one.samples.take(np.zeros(NUM_DRAWS, np.int64)), one.text)
        for varied, found in actions.items():
            noise = _noise(batch, network, varied)
            outputs = planned(network, batch, noise, video_steps).numpy()
            found.append(np.stack([normaliser.actions(output, state) for output in outputs]))
            if varied in scores:
                scores[varied].append(_scores(network, batch, noise, video_steps))
    error = np.mean([action_error(each, held_out, norm) for each in np.stack(actions[ALL], axis=1)])
    return Spreads(
        len(held_out),
        video_steps,
        float(error),
        tuple(
            Spread(
                varied,
                _deviation((np.stack(found) / halves)[:, :, :NUM_COMPARED, :-1]),
                _deviation(np.stack(scores[varied])) if varied in scores else None,
            )
            for varied, found in actions.items()
        ),
    )


def _noise(batch: Batch, network: Network, varied: str) -> PlanNoise:
    """Of NUM_DRAWS plans that differ in what is varied."""
    spec, model = network.spec, network.spec.model
    shapes = {
        "video": tuple(batch.samples.future.shape[1:]),
        "value": (1, spec.num_value_tokens, model.value.in_channels),
        "action": (1, spec.chunk, model.action.in_channels),
    }
    drawn = {name: torch.randn(NUM_DRAWS, *shape, generator=named_generator(name)) for name, shape in shapes.items()}
    return PlanNoise(**{n: x if varied in (n, ALL) else x[:1].expand_as(x) for n, x in drawn.items()})


def _deviation(draws: Array) -> float:
    """`[n, NUM_DRAWS, ...]`: the standard deviation over the draws, the mean over everything else."""
    return float(draws.std(axis=1, ddof=1).mean())


def _scores(network: Network, batch: Batch, noise: PlanNoise, num_video_steps: int) -> Array:
    """`[NUM_DRAWS]` of one value sample on each future: the mean of its last channel along the tokens."""
    features = network.imagined(batch, noise.video, num_video_steps).features

    def velocity(x: Tensor, sigma: float) -> Tensor:
        return network.value(x, torch.full(x.shape[:2], sigma), features)[0]

    values = flow.integrate(velocity, noise.value, network.spec.planner.num_flow_steps)[:, 0, :, -1]
    return values.mean(dim=1).numpy()
