"""Compares a robot with a server's policy before the stream begins. The server compares again.

Nothing is repaired: another order of the joints is a difference like any other.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version

from wavserve.clients.gateways import POLICY_DIGEST
from wavserve.clients.robot import RobotDescription
from wavserve.core.control import Hello
from wavserve.core.errors import ContractMismatch
from wavserve.core.messages import PolicyInfo, Vector

CLIENT_NAME = "wavserve-robot-client"


def check_policy(policy: PolicyInfo, robot: RobotDescription, digest: str) -> None:
    """Raises ContractMismatch naming the first difference: `expected` is the policy's, `actual` the robot's.

    `digest`: of the policy that the robot may have; empty: any.
    """
    if digest and policy.digest != digest:
        raise ContractMismatch(POLICY_DIGEST, digest, policy.digest)
    for field, expected, actual in _pairs(policy, robot):
        if expected != actual:
            raise ContractMismatch(field, expected, actual)


def hello(policy: PolicyInfo, robot: RobotDescription, instruction: str, resume_session_id: str | None) -> Hello:
    """The first message of a stream. The cameras are as the client sends their pictures: as the policy wants them."""
    return Hello(
        client_name=CLIENT_NAME,
        client_version=version("wavserve"),
        robot_id=robot.robot_id,
        embodiment=robot.embodiment,
        policy=policy.name,
        policy_digest=policy.digest,
        state=robot.state,
        action=robot.action,
        control_hz=robot.control_hz,
        cameras=policy.cameras,
        instruction=instruction,
        resume_session_id=resume_session_id,
    )


def _pairs(policy: PolicyInfo, robot: RobotDescription) -> Iterator[tuple[str, object, object]]:
    yield "embodiment", policy.embodiment, robot.embodiment
    yield from _vector_pairs("state", policy.state, robot.state)
    yield from _vector_pairs("action", policy.action, robot.action)
    yield "control_hz", policy.control_hz, robot.control_hz
    yield "cameras", sorted(c.name for c in policy.cameras), sorted(c.name for c in robot.cameras)


def _vector_pairs(field: str, policy: Vector, robot: Vector) -> Iterator[tuple[str, object, object]]:
    yield f"{field}.names", list(policy.names), list(robot.names)
    yield f"{field}.units", list(policy.units), list(robot.units)
    if robot.statistics_digest:
        yield f"{field}.statistics_digest", policy.statistics_digest, robot.statistics_digest
