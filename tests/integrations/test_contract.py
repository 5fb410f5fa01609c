"""The plugin's contract: what LeRobot gives is compared with the policy, and each difference is named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from lerobot_policy_wavserve.contract import check
from tests.integrations.policies import KEYS, POLICY, assumed
from wavserve.core.errors import ContractMismatch


def test_cameras_have_the_last_names_of_their_keys() -> None:
    assert check(POLICY, assumed()) == {KEYS[0]: "agentview", KEYS[1]: "wrist"}


def test_a_map_names_the_cameras_and_leaves_other_pictures_out() -> None:
    keys = ("observation.image", "observation.images.image2", "observation.images.other")
    named = {"observation.image": "wrist", "observation.images.image2": "agentview"}
    assert check(POLICY, assumed(image_keys=keys, camera_map=named)) == named


def test_a_program_that_states_what_the_policy_declares_may_go_on() -> None:
    stated = assumed(
        action_dim=7,
        state_names=POLICY.state.names,
        action_names=POLICY.action.names,
        control_hz=20.0,
        policy_digest=POLICY.digest,
        orientation="as_captured",
    )
    assert len(check(POLICY, stated)) == 2


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("untrained", {"allow_untrained": False}),
        ("observation.state", {"state_dim": 7}),
        ("action", {"action_dim": 6}),
        ("state_names", {"state_names": POLICY.state.names[::-1]}),
        ("action_names", {"action_names": POLICY.action.names[::-1]}),
        ("control_hz", {"control_hz": 30.0}),
        ("policy_digest", {"policy_digest": "another"}),
        ("n_action_steps", {"n_action_steps": 17}),
        ("n_action_steps", {"n_action_steps": 0}),
        ("cameras (camera_map)", {"image_keys": KEYS[:1]}),
        ("cameras (camera_map)", {"image_keys": (*KEYS, "observation.images.third")}),
        ("cameras (camera_map)", {"camera_map": {KEYS[0]: "wrist", KEYS[1]: "wrist"}}),
        ("camera_map", {"camera_map": {"observation.images.nowhere": "wrist"}}),
    ],
)
def test_a_difference_is_named(field: str, changes: dict[str, Any]) -> None:
    with pytest.raises(ContractMismatch) as caught:
        check(POLICY, assumed(**changes))
    assert caught.value.field == field


def test_the_orientation_is_stated_where_the_policy_wants_pictures_turned() -> None:
    cameras = tuple(replace(camera, orientation="rotated_180") for camera in POLICY.cameras)
    policy = replace(POLICY, cameras=cameras)
    with pytest.raises(ContractMismatch, match="orientation: expected as_captured or rotated_180"):
        check(policy, assumed())
    for orientation in ("as_captured", "rotated_180"):
        check(policy, assumed(orientation=orientation))
