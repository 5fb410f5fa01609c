"""Cells of an evaluation: what differs between runs of the same episodes. Each cell has the same starts and seeds.

Data only. Knows no episode and no network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from wavserve.core.spec import RtcMode

Clock = Literal["lockstep", "virtual", "wall"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """How the episodes of one cell are planned, and in which time."""

    name: str
    """unique in a run"""
    planner: Mapping[str, object] = field(default_factory=dict)
    """options of the planner, instead of the policy's defaults"""
    clock: Clock = "lockstep"
    latency_ms: float = 0.0
    """mean of a plan's latency on the virtual clock"""
    jitter_ms: float = 0.0
    loss: float = 0.0
    """share of answers that never arrive, on the virtual clock"""
    rtc: RtcMode = "off"
    blind: bool = False
    """the policy sees grey pictures: how far does it come without its cameras?"""
