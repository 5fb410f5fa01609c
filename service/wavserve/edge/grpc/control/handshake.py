"""Compares what a client assumes of the policy with what the policy declares. Every difference is an error.

A robot whose joints are in another order would move wrongly, so nothing is converted or guessed. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from wavserve.core.control import PROTOCOL_VERSION, Hello
from wavserve.core.errors import ContractMismatch, InvalidRequest, shown
from wavserve.core.messages import PolicyInfo, Vector
from wavserve.core.spec import CameraSpec
from wavserve.edge.validate import check_instruction

MAX_NAME_CHARS = 128


def check_hello(hello: Hello, policy: PolicyInfo) -> None:
    """Raises ContractMismatch for the first field that differs, and InvalidRequest or a child of it for a text that is
    no name or no task."""
    _expect("protocol_version", PROTOCOL_VERSION, hello.protocol_version)
    for field in ("client_name", "client_version"):
        _check_name(field, getattr(hello, field), least=0)
    _check_name("robot_id", hello.robot_id, least=1)
    if hello.resume_session_id is not None:
        _check_name("resume_session_id", hello.resume_session_id, least=1)
    _expect("policy", policy.name, hello.policy)
    _expect("policy_digest", policy.digest, hello.policy_digest)
    _expect("embodiment", policy.embodiment, hello.embodiment)
    _expect("control_hz", policy.control_hz, hello.control_hz)  # NaN equals nothing
    _check_vector("state", policy.state, hello.state)
    _check_vector("action", policy.action, hello.action)
    _check_cameras(policy.cameras, hello.cameras)
    if hello.instruction:
        check_instruction(hello.instruction, policy.max_instruction_bytes)


def _expect(field: str, expected: object, actual: object) -> None:
    if actual != expected:
        raise ContractMismatch(field, _text(expected), _text(actual))


def _check_name(field: str, name: str, least: int) -> None:
    if not (least <= len(name) <= MAX_NAME_CHARS and name.isprintable()):
        raise InvalidRequest(field, f"{least} to {MAX_NAME_CHARS} characters that print", shown(name))


def _check_vector(field: str, declared: Vector, assumed: Vector) -> None:
    """Names and units in their order. A digest of the statistics counts when it is stated."""
    _check_items(f"{field}.names", declared.names, assumed.names)
    _check_items(f"{field}.units", declared.units, assumed.units)
    if assumed.statistics_digest:
        _expect(f"{field}.statistics_digest", declared.statistics_digest, assumed.statistics_digest)


def _check_items(field: str, declared: Sequence[str], assumed: Sequence[str]) -> None:
    if len(assumed) != len(declared):
        raise ContractMismatch(field, f"{len(declared)} entries", f"{len(assumed)} entries")
    for index, (expected, actual) in enumerate(zip(declared, assumed, strict=True)):
        _expect(f"{field}[{index}]", expected, actual)


def _check_cameras(declared: Sequence[CameraSpec], assumed: Sequence[CameraSpec]) -> None:
    """The same cameras, in any order. The size counts where the policy does not resize."""
    expected, names = {camera.name: camera for camera in declared}, [camera.name for camera in assumed]
    if sorted(names) != sorted(expected):
        raise ContractMismatch("cameras", ", ".join(sorted(expected)), shown(", ".join(sorted(names)) or "none"))
    for camera in assumed:
        policy = expected[camera.name]
        field = f"cameras.{camera.name}"
        _expect(f"{field}.orientation", policy.orientation, camera.orientation)
        if policy.resize == "exact":
            _expect(f"{field}.height", policy.height, camera.height)
            _expect(f"{field}.width", policy.width, camera.width)


def _text(value: object) -> str:
    return shown(value) if isinstance(value, str) else str(value)
