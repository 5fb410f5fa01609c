"""The phases of a robot's control, what an operator orders, and what is shown to him. Data only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Phase(Enum):
    DISARMED = "disarmed"
    """nothing is sent"""
    ENABLING = "enabling"
    READY = "ready"
    """plays chunks, approaches a first command, or holds"""
    STOPPED = "stopped"
    """by a fault or an emergency stop; latched"""
    LEFT = "left"


class Order(Enum):
    """What the operator wants."""

    ARM = "arm"
    HOLD = "hold"
    RECOVER = "recover"
    LEAVE = "leave"


@dataclass(frozen=True, slots=True)
class Status:
    """For the operator's screen."""

    phase: Phase
    hold: str
    """why the robot may not play; empty: it may"""
    waits: str
    """why there is no chunk, if the service gave a reason"""
    command: tuple[float, ...]
    """in the policy's units; empty: none"""
