"""Which policies fit LIBERO's robot, and how their pictures are turned."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.clients.libero.examples import LIBERO_POLICY
from wavserve.clients.libero.contract import check_policy, rotation_of
from wavserve.core.errors import ContractMismatch, InvalidRequest
from wavserve.core.libero import ACTION_NAMES, STATE_NAMES
from wavserve.core.messages import Vector
from wavserve.core.spec import CameraSpec

JOINTS = tuple(f"joint_{i}" for i in range(8))


def test_a_policy_of_this_robot_fits() -> None:
    check_policy(LIBERO_POLICY, allow_untrained=False)
    unnamed = Vector(tuple(f"state_{i}" for i in range(8)), ("",) * 8)
    check_policy(replace(LIBERO_POLICY, state=unnamed), allow_untrained=False)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cameras": (CameraSpec("top", 32, 32),)}, "policy.cameras: expected agentview, wrist, .* got top"),
        ({"state": Vector(STATE_NAMES[:7], ("",) * 7)}, "policy.state dimensions: expected 8, .* got 7"),
        ({"state": Vector(JOINTS, ("",) * 8)}, "policy.state.names: expected eef_x .* got joint_0"),
        ({"action": Vector(ACTION_NAMES[::-1], ("",) * 7)}, "policy.action.names: .* got gripper"),
        (
            {"action": Vector(ACTION_NAMES, ("",) * 7, hold=("last",) * 7)},
            "action.hold: expected zero, .* got last, last",
        ),
        ({"control_hz": 30.0}, "policy.control_hz: expected 20.0, .* got 30.0"),
    ],
)
def test_a_policy_of_another_robot_is_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ContractMismatch, match=words):
        check_policy(replace(LIBERO_POLICY, **changes), allow_untrained=False)


def test_an_untrained_policy_is_refused_unless_it_is_allowed() -> None:
    untrained = replace(LIBERO_POLICY, untrained=True)
    with pytest.raises(InvalidRequest, match=r"policy: expected a trained one, or --allow-untrained, got .* untrained"):
        check_policy(untrained, allow_untrained=False)
    check_policy(untrained, allow_untrained=True)


def test_pictures_are_turned_as_the_policy_declares() -> None:
    rotated = tuple(replace(camera, orientation="rotated_180") for camera in LIBERO_POLICY.cameras)
    silent, declared = LIBERO_POLICY, replace(LIBERO_POLICY, embodiment="libero_panda")
    assert [rotation_of(silent, wanted) for wanted in (None, 0, 180)] == [180, 0, 180]
    assert [rotation_of(declared, wanted) for wanted in (None, 0)] == [0, 0]
    assert [rotation_of(replace(silent, cameras=rotated), wanted) for wanted in (None, 180)] == [180, 180]
    with pytest.raises(ContractMismatch, match="--rotation: expected 0, as the policy declares, got 180"):
        rotation_of(declared, 180)
    with pytest.raises(ContractMismatch, match="--rotation: expected 180, as the policy declares, got 0"):
        rotation_of(replace(silent, cameras=rotated), 0)
    with pytest.raises(ContractMismatch, match=r"policy\.cameras: expected one orientation"):
        rotation_of(replace(silent, cameras=(rotated[0], silent.cameras[1])), None)
