"""The numbers by which the action player makes commands of chunks. It knows no robot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from wavserve.core.errors import InvalidRequest, shown
from wavserve.core.spec import Hold

Blend = Literal["linear", "replace", "average"]


@dataclass(frozen=True, slots=True)
class PlayerConfig:
    """How chunks become commands. Tuples per dimension have A entries."""

    blend_steps: int = 8
    """steps over which a new chunk takes over from the old one"""
    blend: Blend = "linear"
    """linear: the new chunk's weight rises over `blend_steps`. average: half of each over the whole overlap. replace:
    the new chunk at once"""
    blend_excluded: tuple[int, ...] = ()
    """dimensions that are replaced at once, and that stop at once in a hold: grippers"""
    max_open_loop_steps: int = 15
    """actions that may still be executed once the next chunk is overdue; see `ActionPlayer.expect`"""
    stop_steps: int = 6
    """steps in which a hold brings the commands to rest"""
    max_step: tuple[float, ...] | None = None
    """largest change of a command in one step, from the last command; infinity: not limited"""
    limits: tuple[tuple[float, float] | None, ...] | None = None
    """lowest and highest command; None: not limited"""
    hold: tuple[Hold, ...] = ()
    """what a robot at rest is sent, as the policy's action declares it (`Vector.hold`). last: the last command again,
    which is a position. zero: 0, because the command is an offset. Empty: last everywhere"""
    action_range: tuple[float, ...] | None = None
    """what `Command.seam_jump` is a fraction of; None: 1, so that it is in the action's units"""


def check_config(config: PlayerConfig, action_dim: int) -> None:
    """Raises InvalidRequest naming the field."""
    for name in ("blend_steps", "max_open_loop_steps", "stop_steps"):
        if getattr(config, name) < 0:
            raise InvalidRequest(name, "at least 0", getattr(config, name))
    if config.blend not in get_args(Blend):
        raise InvalidRequest("blend", f"one of {', '.join(get_args(Blend))}", shown(config.blend))
    if any(not 0 <= dimension < action_dim for dimension in config.blend_excluded):
        raise InvalidRequest("blend_excluded", f"dimensions from 0 to {action_dim - 1}", config.blend_excluded)
    if len(config.hold) not in (0, action_dim):
        raise InvalidRequest("hold", f"no entry, or {action_dim}", f"{len(config.hold)} entries")
    if any(each not in get_args(Hold) for each in config.hold):
        raise InvalidRequest("hold", f"entries of {', '.join(get_args(Hold))}", shown(config.hold))
    for name in ("max_step", "limits", "action_range"):
        entries = getattr(config, name)
        if entries is not None and len(entries) != action_dim:
            raise InvalidRequest(name, f"{action_dim} entries", f"{len(entries)} entries")
    for name in ("max_step", "action_range"):
        if any(not each > 0 for each in getattr(config, name) or ()):
            raise InvalidRequest(name, "numbers above 0", shown(getattr(config, name)))
    if any(each is not None and not each[0] <= each[1] for each in config.limits or ()):
        raise InvalidRequest("limits", "pairs of a low and a high number, in this order", shown(config.limits))
