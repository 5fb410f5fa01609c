"""The loop without a model: checkpoints by the clock, curves, averages, and losses that are not finite."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from wavserve.core.errors import BundleError
from wavserve.training import checkpoint
from wavserve.training.checkpoint import Origin
from wavserve.training.loop import Curve, Run, train
from wavserve.training.recipe import Optimisation
from wavserve.training.trainer import Trainer, adam_state

ORIGIN = Origin("toy", "recipe", "data", 3, "base")


class Line:
    """Learns to be 3 everywhere."""

    def __init__(self, loss: Callable[[int, Tensor], Tensor] = lambda step, error: error) -> None:
        self._module, self._loss = nn.Linear(2, 1), loss
        nn.init.zeros_(self._module.weight)
        nn.init.zeros_(self._module.bias)

    def modules(self) -> Mapping[str, nn.Module]:
        return {"line": self._module}

    def fixed(self) -> Mapping[str, Tensor]:
        return {"number": torch.tensor(7.0)}

    def losses(self, step: int) -> dict[str, Tensor]:
        x = torch.randn(8, 2, generator=torch.Generator().manual_seed(step))
        loss = self._loss(step, (self._module(x) - 3).square().mean())
        return {"loss": loss, **({"odd": loss} if step % 2 else {})}

    def evaluate(self) -> dict[str, float]:
        return {"bias": self._module.bias.item()}


def run(folder: Path, said: list[str] | None = None, clock: Callable[[], float] = lambda: 0.0) -> Run:
    return Run(folder, ORIGIN, 50, [].append if said is None else said.append, 60.0, clock)


def trainer(objective: Line | None = None, num_steps: int = 200) -> Trainer:
    optimisation = Optimisation(num_steps=num_steps, batch_size=8, learning_rate=0.1, warmup_steps=10, ema=0.9)
    return Trainer(objective or Line(), optimisation)


def test_it_learns_and_the_average_follows(tmp_path: Path) -> None:
    train(trainer(), run(tmp_path), None)
    found = checkpoint.read(tmp_path)
    assert found is not None
    assert found.about.is_done
    assert found.of("average")["line.bias"].item() == pytest.approx(3.0, abs=0.05)
    assert found.of("fixed")["number"].item() == 7.0


def test_the_curve_has_a_point_every_twenty_steps_and_held_out_figures_when_due(tmp_path: Path) -> None:
    said: list[str] = []
    train(trainer(num_steps=110), run(tmp_path, said), None)
    found = checkpoint.read(tmp_path)
    assert found is not None
    points = Curve.of(found).points
    assert [point["step"] for point in points] == [20, 40, 60, 80, 100, 110]
    assert [point["step"] for point in points if "held out, bias" in point] == [60, 100, 110]
    assert all({"loss", "odd", "gradient"} <= point.keys() for point in points)
    assert sum("held out: bias" in line for line in said) == 3


def test_checkpoints_are_written_by_the_clock(tmp_path: Path) -> None:
    """Ten seconds a look at the clock: the first checkpoint comes long before the end, and tells the time so far."""
    now = [0.0]

    def clock() -> float:
        now[0] += 10.0
        return now[0]

    def stop(step: int, error: Tensor) -> Tensor:
        if step == 70:
            raise KeyboardInterrupt
        return error

    with pytest.raises(KeyboardInterrupt):
        train(trainer(Line(stop)), run(tmp_path, clock=clock), None)
    found = checkpoint.read(tmp_path)
    assert found is not None
    assert 0 < found.about.step < 70
    assert found.about.step % 20 == 0
    assert found.about.seconds > 0


def test_a_loss_that_is_not_finite_ends_the_training_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    def broken(step: int, error: Tensor) -> Tensor:
        return error * math.nan if step == 30 else error

    train(trainer(num_steps=20), run(tmp_path), None)
    saved = checkpoint.read(tmp_path)
    assert saved is not None
    with pytest.raises(BundleError, match=r"step 30: expected finite losses, got .*nan"):
        train(trainer(Line(broken)), run(tmp_path), saved)
    kept = checkpoint.read(tmp_path)
    assert kept is not None
    assert kept.about.step == 20


def test_held_out_figures_that_are_not_finite_end_the_training(tmp_path: Path) -> None:
    """Also at the last step, whose weights no later loss would judge."""

    class Broken(Line):
        def evaluate(self) -> dict[str, float]:
            return {"bias": math.nan}

    with pytest.raises(BundleError, match=r"step 20: expected finite figures on held-out episodes, got .*nan"):
        train(trainer(Broken(), num_steps=20), run(tmp_path), None)
    assert checkpoint.read(tmp_path) is None


def test_what_the_optimiser_goes_on_from_lies_where_its_weights_do() -> None:
    """The count of steps too: fused AdamW on a GPU reads it there."""
    state = adam_state(20, torch.zeros(3), torch.ones(3), torch.device("meta"))
    assert {name: tensor.device.type for name, tensor in state.items()} == dict.fromkeys(
        ("step", "exp_avg", "exp_avg_sq"), "meta"
    )


def test_a_partial_file_is_not_taken_for_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / checkpoint.FILE).with_suffix(".tmp").write_bytes(b"half")
    assert checkpoint.read(tmp_path) is None
    train(trainer(num_steps=20), run(tmp_path), None)
    assert checkpoint.read(tmp_path) is not None


@pytest.mark.parametrize(("field", "what"), [("recipe", "recipe"), ("data", "data set"), ("base", "earlier stage")])
def test_another_origin_is_refused_with_both_digests(field: str, what: str) -> None:
    names = {"stage": "toy", "recipe": "recipe", "data": "data", "num_episodes": 3, "base": "base"}
    other = Origin(**{**names, field: "other"})  # type: ignore[arg-type]
    with pytest.raises(BundleError, match=f"expected a checkpoint of {what} {names[field]}, got other"):
        checkpoint.check_origin(Path("run"), other, ORIGIN)
