"""What moves a plan: how much its actions and its score vary with the noise of the future, of the value, of the action.

Planning chooses among noises of futures and of values. Where these hardly move the actions, it has little to choose.
Where futures hardly move the score, it cannot tell them apart. Measured on held-out observations with the forwards of
training, which are those of serving. Knows no simulator.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
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
ALL = "all"
VARIED = ("video", "value", "action", ALL)
"""The noises of a plan, by the names of their streams, and all of them together."""
_GRIPPER = "gripper"
"""a command that is a sign: its spread says nothing"""


@dataclass(frozen=True, slots=True)
class Spread:
    """What varies with one noise while the others stay. Standard deviations over NUM_DRAWS draws, the mean over
    observations."""

    varied: str
    """one of VARIED"""
    actions: float
    """of the first actions without the gripper, in units of half of each one's range (q01 to q99)"""
    score: float
    """of one value sample's score in mode `mean`, in the model's units"""
    future: float
    """of the latents of the future, denoised in as many steps as a plan's imagined frames. Latents have a variance of
    about 1"""


@dataclass(frozen=True, slots=True)
class Spreads:
    """All of them."""

    num_observations: int
    num_video_steps: int
    """by which futures were denoised before the experts read them"""
    action_error: float
    """mean absolute error of the first actions, gripper included, to the expert's; the same units"""
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
    network, normaliser = network_of(folder, spec), Normaliser(spec)
    video_steps = spec.planner.num_video_steps if num_video_steps is None else num_video_steps
    moved = [name != _GRIPPER for name in spec.action.vector.names]
    halves = (action_range(spec.action.vector.norm) / 2).astype(np.float32)
    actions: dict[str, list[Array]] = {varied: [] for varied in VARIED}
    deviations: dict[str, list[tuple[float, float, float]]] = {varied: [] for varied in VARIED}
    for row, one in enumerate(observed(folder, spec, held_out)):
        batch = Batch(one.samples.take(np.zeros(NUM_DRAWS, np.int64)), one.text)
        drawn = _drawn(network, batch, row)
        for varied in VARIED:
            noise = PlanNoise(**{n: x if varied in (n, ALL) else x[:1].expand_as(x) for n, x in drawn.items()})
            outputs = planned(network, batch, noise, video_steps).numpy()
            actions[varied].append(np.stack([normaliser.actions(each, held_out.state[row]) for each in outputs]))
            first = (actions[varied][-1] / halves)[:, :NUM_COMPARED, moved]
            scores, futures = _scores(network, batch, noise, video_steps), _futures(network, batch, noise)
            deviations[varied].append((_deviation(first), _deviation(scores), _deviation(futures)))
    errors = [action_error(each, held_out, spec.action.vector.norm) for each in np.stack(actions[ALL], axis=1)]
    spreads = (Spread(varied, *np.mean(found, axis=0).tolist()) for varied, found in deviations.items())
    return Spreads(len(held_out), video_steps, float(np.mean(errors)), tuple(spreads))


def _drawn(network: Network, batch: Batch, row: int) -> Mapping[str, Tensor]:
    """Standard normals of NUM_DRAWS plans for an observation, by the name of their stream."""
    spec, model = network.spec, network.spec.model
    shapes = {
        "video": batch.samples.future.shape[1:],
        "value": (1, spec.num_value_tokens, model.value.in_channels),
        "action": (1, spec.chunk, model.action.in_channels),
    }
    return {
        name: torch.randn(NUM_DRAWS, *shape, generator=named_generator(f"{name}:{row}"))
        for name, shape in shapes.items()
    }


def _deviation(draws: Array) -> float:
    """`[NUM_DRAWS, ...]`: the standard deviation over the draws, the mean over everything else."""
    return float(draws.std(axis=0, ddof=1).mean())


def _scores(network: Network, batch: Batch, noise: PlanNoise, num_video_steps: int) -> Array:
    """`[NUM_DRAWS]` of one value sample on each future: the mean of its last channel along the tokens."""
    features = network.imagined(batch, noise.video, num_video_steps).features

    def velocity(x: Tensor, sigma: float) -> Tensor:
        return network.value(x, torch.full(x.shape[:2], sigma), features)[0]

    values = flow.integrate(velocity, noise.value, network.spec.planner.num_flow_steps)[:, 0, :, -1]
    return values.mean(dim=1).numpy()


def _futures(network: Network, batch: Batch, noise: PlanNoise) -> Array:
    """`[NUM_DRAWS, V, L, C]`: the futures as a person would see them, denoised to the end."""

    def velocity(x: Tensor, sigma: float) -> Tensor:
        return network.video(batch, x, torch.tensor([sigma])).velocity[:, :, -1]

    return flow.integrate(velocity, noise.video, network.spec.planner.num_flow_steps).numpy()
