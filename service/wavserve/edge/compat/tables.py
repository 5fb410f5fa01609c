"""How the clients of other servers name the policy's cameras, and what their protocols leave unsaid.

Each dialect has a table from the names that its clients send to the policy's cameras. The settings give the tables.
Knows no wire.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from wavserve.core.errors import InvalidRequest, SettingsError, Unsupported, shown
from wavserve.core.spec import PolicySpec
from wavserve.edge.validate import check_instruction

Dialect = Literal["aloha", "libero", "droid", "wav", "predict"]
"""`predict` is the authors' HTTP API, the others are forms of openpi's observations."""
DIALECTS: tuple[Dialect, ...] = get_args(Dialect)

PROMPT = "prompt"
GRIPPER_KEY = "observation/gripper_position"
STATE_KEYS: Mapping[Dialect, tuple[str, ...]] = {
    "libero": ("observation/state",),
    "droid": ("observation/joint_position", GRIPPER_KEY),
}
"""The keys whose numbers are the state, in order. The images have other keys beside them."""
PREDICT_IMAGES = ("front_head", "left_hand", "right_hand")

IGNORED = "none"
"""In place of a camera: clients may send the name, and the service does not read it."""

Table = Mapping[str, str]
"""name that a client sends -> camera of the policy, or IGNORED"""


@dataclass(frozen=True, slots=True)
class CompatConfig:
    """The edge's slice of the settings."""

    executed_steps: int
    """steps that a client executes of each chunk, where its protocol does not say"""
    tables: Mapping[Dialect, Table] = field(default_factory=dict)
    """of the dialects that fit the policy"""
    instruction: str | None = None
    """of a request that has none; None: such a request is refused"""
    allow_untrained: bool = False

    def check(self, spec: PolicySpec) -> None:
        """Raises SettingsError for steps that no chunk has, and for an instruction that would be refused."""
        if self.executed_steps > spec.chunk:
            expected = f"at most {spec.chunk}, the policy's horizon"
            raise SettingsError(f"compat.executed_steps: expected {expected}, got {self.executed_steps}")
        try:
            if self.instruction is not None:
                check_instruction(self.instruction, spec.max_instruction_bytes)
        except InvalidRequest as error:
            raise SettingsError(f"compat.{error.message}") from None

    def table(self, dialect: Dialect) -> Table:
        """Raises Unsupported when the dialect does not fit the policy."""
        if dialect not in self.tables:
            raise Unsupported(f"compat.{dialect} does not name each camera of the policy: set it to serve such clients")
        return self.tables[dialect]


def camera_of(table: Table, name: str, field: str, dialect: Dialect) -> str | None:
    """The camera that a client means; None: its image is not read. Raises InvalidRequest naming `field`."""
    if name not in table:
        raise InvalidRequest(field, f"one of {', '.join(table)}, as compat.{dialect} says", shown(name))
    return None if table[name] == IGNORED else table[name]


def tables_for(
    given: Mapping[Dialect, Sequence[str]], chosen: Collection[str], spec: PolicySpec
) -> dict[Dialect, Table]:
    """The tables that fit the policy. `given`: `NAME=CAMERA` entries of each dialect. `chosen`: those somebody has set.

    A default that does not fit is left out. Raises SettingsError for a chosen one.
    """
    tables: dict[Dialect, Table] = {}
    for dialect, entries in given.items():
        pairs = [_entry(entry) for entry in entries]
        problem = _misnamed([name for name, _ in pairs], dialect) or _misfit(dict(pairs), spec)
        if problem is None:
            tables[dialect] = dict(pairs)
        elif dialect in chosen and entries:
            raise SettingsError(f"compat.{dialect}: {problem}")
    return tables


def _entry(entry: str) -> tuple[str, str]:
    name, _, camera = entry.rpartition("=")
    return name, camera


def _misnamed(names: Sequence[str], dialect: Dialect) -> str | None:
    """Why a client of the dialect cannot send its images by these names."""
    for name, count in Counter(names).items():
        if count > 1:
            return f"expected the name {shown(name)} once, got {count}"
        if name in (*STATE_KEYS.get(dialect, ()), PROMPT):
            return f"expected names of images, got {shown(name)}"
    given = {"wav": tuple(map(str, range(len(names)))), "predict": PREDICT_IMAGES}.get(dialect)
    if given is not None and set(names) != set(given):
        return f"expected the names {', '.join(given)}, got {shown(', '.join(names))}"
    return None


def _misfit(table: Table, spec: PolicySpec) -> str | None:
    """Why a table does not name each camera of the policy once."""
    cameras = [camera.name for camera in spec.cameras]
    counts = Counter(camera for camera in table.values() if camera != IGNORED)
    for camera, count in counts.items():
        if camera not in cameras:
            return f"expected cameras of the policy ({', '.join(cameras)}) or {IGNORED}, got {shown(camera)}"
        if count > 1:
            return f"expected one name of the camera {camera}, got {count}"
    missing = [camera for camera in cameras if camera not in counts]
    return f"expected a name of the camera {missing[0]}, got none" if missing else None
