"""Whether a policy fits LIBERO's robot, told before anything starts, and how its pictures must be turned."""

from __future__ import annotations

from collections.abc import Iterator

from wavserve.core.errors import ContractMismatch, InvalidRequest
from wavserve.core.libero import ACTION_NAMES, CAMERAS, CONTROL_HZ, STATE_NAMES
from wavserve.core.messages import PolicyInfo, Vector
from wavserve.core.spec import Hold

HOLD: tuple[Hold, ...] = (*("zero",) * 6, "last")
"""What the commands mean: six offsets of the pose, and the sign of the gripper."""
ROTATION = 180
"""of the literature's policies, in degrees; for a policy that does not declare its embodiment, and so no orientation"""


def check_policy(policy: PolicyInfo, allow_untrained: bool) -> None:
    """Raises ContractMismatch naming the first difference, and InvalidRequest for a policy with random weights."""
    for field, expected, actual in _pairs(policy):
        if expected != actual:
            raise ContractMismatch(f"policy.{field}", f"{expected}, as LIBERO's robot has", actual)
    check_hold(policy)
    if policy.untrained and not allow_untrained:
        raise InvalidRequest("policy", "a trained one, or --allow-untrained", f"{policy.name}, which is untrained")


def check_hold(policy: PolicyInfo) -> None:
    """Raises ContractMismatch for a policy whose commands mean something else. An old bundle declares nothing."""
    if policy.action.hold not in ((), HOLD):
        raise ContractMismatch("policy.action.hold", ", ".join(HOLD), ", ".join(policy.action.hold))


def rotation_of(policy: PolicyInfo, wanted: int | None) -> int:
    """Degrees by which captured pictures are turned for a policy. `wanted` None: as it declares, else ROTATION.

    Raises ContractMismatch for another rotation than the policy declares, and where its cameras differ.
    """
    declared = {180 if each.orientation == "rotated_180" else 0 for each in policy.cameras}
    if len(declared) > 1:
        raise ContractMismatch("policy.cameras", "one orientation of all cameras", "two orientations")
    [rotation] = declared
    if not policy.embodiment and rotation == 0:
        return ROTATION if wanted is None else wanted
    if wanted not in (None, rotation):
        raise ContractMismatch("--rotation", f"{rotation}, as the policy declares", wanted)
    return rotation


def _pairs(policy: PolicyInfo) -> Iterator[tuple[str, object, object]]:
    yield "cameras", ", ".join(sorted(CAMERAS)), ", ".join(sorted(each.name for each in policy.cameras))
    yield from _vector_pairs("state", STATE_NAMES, policy.state)
    yield from _vector_pairs("action", ACTION_NAMES, policy.action)
    yield "control_hz", CONTROL_HZ, policy.control_hz


def _vector_pairs(field: str, names: tuple[str, ...], vector: Vector) -> Iterator[tuple[str, object, object]]:
    """Names in their order. A bundle that was imported without names has numbered ones, which say nothing."""
    yield f"{field} dimensions", len(names), len(vector.names)
    if vector.names != tuple(f"{field}_{i}" for i in range(len(names))):
        yield f"{field}.names", " ".join(names), " ".join(vector.names)
