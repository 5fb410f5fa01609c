"""The scripted expert in a scene without physics: it solves tasks, turns its hand, and tries again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.training.fake_scene import SUITE, FakeScene, rotation
from wavserve.core.errors import SimulationError
from wavserve.core.simulation import Start, Variation
from wavserve.training.demos.expert import Expert, Phase
from wavserve.training.demos.grasp import MAX_WIDTH_M, plan_grasp
from wavserve.training.demos.scene import Scene, rotation_vector


def start(task: int = 0, state_index: int = 0, seed: int = 0) -> Start:
    return Start(SUITE, task, state_index, seed, Variation(seed))


def played(scene: FakeScene, max_steps: int = 200) -> tuple[bool, list[Phase]]:
    expert, phases = Expert(scene.layout(), scene.poses()), []
    for _ in range(max_steps):
        phases.append(expert.phase)
        command = expert.act(scene.poses())
        assert command.shape == (7,)
        assert np.abs(command).max() <= 1.0
        if scene.step(command):
            return True, phases
    return False, phases


@pytest.mark.parametrize("task", [0, 1])
@pytest.mark.parametrize("seed", range(5))
def test_it_picks_the_box_up_and_puts_it_into_the_basket(task: int, seed: int) -> None:
    scene = FakeScene()
    scene.reset(start(task, seed % 4, seed))
    success, phases = played(scene)
    assert success
    assert [each for each, before in zip(phases, [None, *phases], strict=False) if each != before] == [
        Phase(index) for index in range(phases[-1] + 1)
    ], "each phase once, in order"


def test_it_tries_again_when_the_object_slips() -> None:
    scene = FakeScene(slips_at=70)
    scene.reset(start())
    success, phases = played(scene)
    assert phases[69] in (Phase.LIFT, Phase.CARRY)
    assert phases[70:].count(Phase.CLOSE) >= 1
    assert success


def test_it_takes_over_from_any_state() -> None:
    scene = FakeScene()
    scene.reset(start(seed=3))
    rng = np.random.default_rng(0)
    for _ in range(30):
        scene.step(np.append(rng.normal(0.0, 0.5, 6), 1.0))
    assert played(scene)[0]


@pytest.mark.parametrize(
    ("above_m", "aside_m", "phase"),
    [
        (0.0, 0.0, Phase.CLOSE),
        (0.005, 0.01, Phase.DESCEND),
        (0.1, 0.0, Phase.DESCEND),
        (0.0, 0.03, Phase.HOVER),
    ],
)
def test_where_a_policy_stopped_at_the_object_it_does_not_go_up_again(
    above_m: float, aside_m: float, phase: Phase
) -> None:
    scene = FakeScene()
    scene.reset(start())
    grasp = plan_grasp(Scene(scene.layout(), scene.poses()))
    scene.turn = grasp.rotation
    scene.hand = grasp.position + np.array([aside_m, 0.0, above_m])
    expert = Expert(scene.layout(), scene.poses())
    command = expert.act(scene.poses())
    assert expert.phase is phase
    assert (command[2] > 0.1) == (phase is Phase.HOVER)
    assert played(scene)[0]


def test_its_hand_turns_to_a_box_that_fits_one_way_only() -> None:
    scene = FakeScene()
    scene.reset(start())
    layout = scene.layout()
    wide = layout.boxes.copy()
    wide[0, 1, 1] *= 3.0  # 12 cm along y, where the fingers of a hand that is not turned close
    grasp = plan_grasp(Scene(replace(layout, boxes=wide), scene.poses()))
    assert np.degrees(abs(grasp.yaw)) == pytest.approx(90, abs=20)
    assert 2 * wide[0, 1, 1] > MAX_WIDTH_M
    assert np.allclose(grasp.rotation.T @ grasp.rotation, np.eye(3))
    assert np.allclose(grasp.rotation[:, 2], [0, 0, -1]), "it points down"


def test_it_goes_slowly_to_a_far_place_while_its_hand_tilts() -> None:
    def first_command(tilt_rad: float, far: bool) -> float:
        scene = FakeScene()
        scene.reset(start())
        scene.object[0] = 0.3 if far else 0.05
        scene.turn = rotation(np.array([0.0, tilt_rad, 0.0])) @ scene.turn
        return float(Expert(scene.layout(), scene.poses()).act(scene.poses())[0])

    assert first_command(0.3, far=False) == first_command(0.0, far=False) == 1.0
    assert first_command(0.0, far=True) == 1.0
    assert first_command(0.3, far=True) < 0.4


def test_a_finger_finds_a_thin_wall_between_the_points_of_a_coarse_grid() -> None:
    scene = FakeScene()
    scene.reset(start())
    boxes = scene.layout().boxes.copy()
    boxes[1] = [[0.0, 0.0, 0.0], [0.2, 0.003, 0.05]]  # a wall, 40 cm long
    scene.other = scene.object + np.array([0.03, 0.045, 0.0])
    grasp = plan_grasp(Scene(replace(scene.layout(), boxes=boxes), scene.poses()))
    assert abs(grasp.yaw) > 0.7, "along the wall"
    assert grasp.cost < 100


def test_a_grasp_beside_which_something_stands_costs_more() -> None:
    scene = FakeScene()
    scene.reset(start())
    free = plan_grasp(Scene(scene.layout(), scene.poses()))
    scene.other = scene.object + np.array([0.0, 0.05, 0.0])
    beside = plan_grasp(Scene(scene.layout(), scene.poses()))
    assert free.cost < beside.cost < 100
    assert abs(beside.yaw) > 0.7, "its fingers pass by"


def test_a_hollow_object_is_taken_at_its_rim() -> None:
    scene = FakeScene()
    scene.reset(start())
    layout = replace(scene.layout(), object="basket", destination="box")
    grasp = plan_grasp(Scene(layout, scene.poses()))
    from_centre = np.linalg.norm(grasp.position[:2] - scene.basket)
    assert 0.08 < from_centre < 0.14


def test_an_object_that_is_too_large_has_no_grasp() -> None:
    scene = FakeScene()
    scene.reset(start())
    huge = scene.layout().boxes * 100
    with pytest.raises(SimulationError, match="no grasp of box"):
        plan_grasp(Scene(replace(scene.layout(), boxes=huge), scene.poses()))


@pytest.mark.parametrize("vector", [[0.1, 0.0, 0.0], [0.0, -1.2, 0.4], [1e-12, 0.0, 0.0], [1.0, 2.0, 0.5]])
def test_a_rotation_vector_is_that_of_its_matrix(vector: list[float]) -> None:
    assert np.allclose(rotation_vector(rotation(np.array(vector))), vector, atol=1e-9)
