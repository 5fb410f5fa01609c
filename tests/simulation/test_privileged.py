"""What only a simulator knows, through a process: layouts and poses, and starts that vary. The second half is real."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from tests.simulation.fake import FakeEnvironment
from tests.training.fake_scene import SUITE, FakeScene
from wavserve.core.errors import SimulationError
from wavserve.core.simulation import Poses, PrivilegedEnvironment, Start, Variation
from wavserve.core.starts import shifted_seed, shifted_start
from wavserve.simulation.config import SimulationConfig
from wavserve.simulation.environment import open_environment
from wavserve.simulation.process import SimulatorProcess

ROOT = Path(__file__).parents[2]
UP = np.array([0, 0, 1, 0, 0, 0, -1.0])
SERVING = "from wavserve.simulation.worker import serve; from tests.{0} import {1}; serve({1})"


def in_a_process(module: str, name: str) -> SimulatorProcess:
    variables = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'service'}"}
    return SimulatorProcess([sys.executable, "-c", SERVING.format(module, name)], variables)


def test_a_process_tells_what_its_environment_tells() -> None:
    start = Start(SUITE, 1, 2, 3, Variation(7, object_m=0.01))
    here = FakeScene()
    here.reset(start)
    with closing(in_a_process("training.fake_scene", "FakeScene")) as there:
        assert isinstance(there, PrivilegedEnvironment)
        assert there.reset(start).index == 1
        layout, expected = there.layout(), here.layout()
        assert (layout.relation, layout.object, layout.destination, layout.names) == (
            expected.relation,
            expected.object,
            expected.destination,
            expected.names,
        )
        assert np.array_equal(layout.owners, expected.owners)
        assert np.array_equal(layout.boxes, expected.boxes)
        for environment in (there, here):
            environment.step(UP)
        for field in fields(Poses):
            assert np.array_equal(getattr(there.poses(), field.name), getattr(here.poses(), field.name)), field.name


def test_an_environment_without_such_knowledge_says_so() -> None:
    with closing(in_a_process("simulation.fake", "FakeEnvironment")) as environment:
        environment.reset(Start("fake_reach", 0, 0, 0))
        with pytest.raises(SimulationError, match="no such call: poses"):
            environment.poses()
    assert not isinstance(FakeEnvironment(), PrivilegedEnvironment)


@pytest.fixture(scope="module")
def libero() -> Iterator[SimulatorProcess]:
    with closing(open_environment(SimulationConfig(size=64), os.environ)) as opened:
        yield opened


def positions(environment: SimulatorProcess, variation: Variation | None, task: int = 7) -> Poses:
    environment.reset(Start("libero_object", task, 20, 0, variation))
    return environment.poses()


@pytest.mark.system
def test_the_simulator_tells_the_object_and_where_it_goes(libero: SimulatorProcess) -> None:
    poses = positions(libero, None)
    layout = libero.layout()
    assert (layout.relation, layout.object, layout.destination) == ("in", "milk_1", "basket_1")
    assert len(layout.owners) == len(layout.boxes) == len(poses.shape_positions)
    assert np.allclose(np.linalg.det(poses.shape_rotations), 1.0)
    assert np.allclose(poses.hand, libero.state()[:3], atol=0.005)
    basket = poses.positions[layout.names.index("basket_1")]
    assert np.linalg.norm(poses.goal[:2] - basket[:2]) < 0.03
    for _ in range(4):
        libero.step(UP)
    assert 0.02 < libero.poses().hand[2] - poses.hand[2] < 0.08


@pytest.mark.system
def test_a_variation_moves_everything_within_its_bounds_and_nothing_nearer(libero: SimulatorProcess) -> None:
    shipped, names = positions(libero, None).positions, libero.layout().names
    objects = [name for name in names if name.endswith("_1")]
    bounds = dict.fromkeys(objects, 0.03) | {"basket_1": 0.015}
    shifts = []
    for seed in range(12):
        varied = positions(libero, Variation(seed))
        assert np.array_equal(varied.positions, positions(libero, Variation(seed)).positions)
        moved = np.linalg.norm((varied.positions - shipped)[:, :2], axis=1)
        for name, distance in zip(names, moved, strict=True):
            assert distance <= bounds[name] + 0.002, name
        pairs = np.triu_indices(len(names), 1)
        apart, before = (
            np.linalg.norm((each[pairs[0]] - each[pairs[1]])[:, :2], axis=1) for each in (varied.positions, shipped)
        )
        assert (apart >= np.minimum(before, 0.095) - 0.002).all()
        shifts.append(moved[names.index("milk_1")])
    assert max(shifts) > 0.02
    assert len(set(np.round(shifts, 6))) == 12
    hands = [positions(libero, Variation(seed)).hand for seed in range(4)]
    assert 0.0005 < np.std(hands, axis=0).max() < 0.03


@pytest.mark.system
def test_a_task_that_moves_several_objects_has_no_layout(libero: SimulatorProcess) -> None:
    libero.reset(Start("libero_10", 0, 0, 0))
    with pytest.raises(SimulationError, match="moves one object"):
        libero.layout()


@pytest.mark.system
def test_a_start_that_cannot_be_varied_is_named(libero: SimulatorProcess) -> None:
    with pytest.raises(SimulationError, match="libero_10 task 0, state 3: expected a task that moves one object"):
        libero.reset(Start("libero_10", 0, 3, 0, Variation(1)))


@pytest.mark.system
def test_a_shifted_start_of_an_evaluation_exists_on_every_task(libero: SimulatorProcess) -> None:
    for task in libero.tasks("libero_object"):
        shipped = shifted_start(task.suite, task.index, 0, 7, 0.0)
        libero.reset(shipped)
        before = libero.poses().positions
        libero.reset(shifted_start(task.suite, task.index, 0, shifted_seed(task, 0, 7), 0.03))
        moved = np.linalg.norm((libero.poses().positions - before)[:, :2], axis=1)
        assert 0.0 < moved.max() <= 0.032, task.name
