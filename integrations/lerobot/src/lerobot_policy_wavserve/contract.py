"""Compares what LeRobot gives and expects with the served policy, before the first action.

Nothing is repaired: another order of names is a difference like any other. Knows neither torch nor LeRobot.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from wavserve.core.errors import ContractMismatch
from wavserve.core.messages import PolicyInfo
from wavserve.core.spec import Orientation

IMAGES_PREFIX = "observation.images."


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumed:
    """What the program assumes of the policy. None, and an empty text: it assumes nothing."""

    image_keys: Collection[str]
    """the keys of the batch that are pictures"""
    state_dim: int
    """S of the batch"""
    n_action_steps: int
    action_dim: int | None = None
    camera_map: Mapping[str, str] = field(default_factory=dict)
    """key of the batch -> camera of the policy; empty: cameras have their keys' last names"""
    orientation: Orientation | None = None
    state_names: tuple[str, ...] | None = None
    action_names: tuple[str, ...] | None = None
    control_hz: float | None = None
    policy_digest: str = ""
    allow_untrained: bool = False


def check(policy: PolicyInfo, assumed: Assumed) -> dict[str, str]:
    """Returns the camera of each key. Raises ContractMismatch naming the first difference.

    `expected` is what the policy declares, `actual` what the program gives.
    """
    if policy.untrained and not assumed.allow_untrained:
        raise ContractMismatch("untrained", "a trained policy, or allow_untrained=true", f"{policy.name}, untrained")
    for name, expected, actual in _pairs(policy, assumed):
        if expected != actual:
            raise ContractMismatch(name, expected, actual)
    if not 1 <= assumed.n_action_steps <= policy.horizon:
        raise ContractMismatch("n_action_steps", f"1 to {policy.horizon}, the horizon", assumed.n_action_steps)
    turned = [camera.name for camera in policy.cameras if camera.orientation == "rotated_180"]
    if turned and assumed.orientation is None:
        expected = f"as_captured or rotated_180, because the policy wants {turned[0]} turned by 180 degrees"
        raise ContractMismatch("orientation", expected, "nothing")
    return _cameras(policy, assumed)


def _pairs(policy: PolicyInfo, assumed: Assumed) -> Iterator[tuple[str, object, object]]:
    """What must be equal, where the program assumes something."""
    yield "observation.state", f"{len(policy.state.names)} numbers", f"{assumed.state_dim} numbers"
    if assumed.action_dim is not None:
        yield "action", f"{len(policy.action.names)} numbers", f"{assumed.action_dim} numbers"
    if assumed.state_names is not None:
        yield "state_names", list(policy.state.names), list(assumed.state_names)
    if assumed.action_names is not None:
        yield "action_names", list(policy.action.names), list(assumed.action_names)
    if assumed.control_hz is not None:
        yield "control_hz", policy.control_hz, assumed.control_hz
    if assumed.policy_digest:
        yield "policy_digest", policy.digest, assumed.policy_digest


def _cameras(policy: PolicyInfo, assumed: Assumed) -> dict[str, str]:
    keys = sorted(assumed.image_keys)
    for key in assumed.camera_map:
        if key not in keys:
            raise ContractMismatch("camera_map", f"keys of the batch, which are {', '.join(keys)}", key)
    cameras = dict(assumed.camera_map) or {key: key.removeprefix(IMAGES_PREFIX) for key in keys}
    expected, actual = sorted(camera.name for camera in policy.cameras), sorted(cameras.values())
    if expected != actual:
        raise ContractMismatch("cameras (camera_map)", expected, actual)
    return cameras
