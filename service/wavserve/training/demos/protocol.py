"""The protocol of a demonstration: how it differs from a clean one, and when the expert takes over from a policy.

Data only. A data set keeps all of it in its recipe.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from wavserve.core.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Disturbances:
    """How episodes differ from clean ones."""

    share: float = 0.75
    """of the episodes that are disturbed at all"""
    noise: float = 0.05
    """standard deviation of each command's direction"""
    push_probability: float = 0.05
    """that a push begins at a step"""
    push: float = 0.5
    """standard deviation of a push, as a command; 0.7 of it in height"""
    push_steps: tuple[int, int] = (3, 8)
    """shortest and longest push"""


@dataclass(frozen=True, slots=True)
class Takeover:
    """When the expert takes over from a policy that acts first."""

    alone: float = 0.2
    """share of the episodes that the policy plays to their end"""
    early: float = 0.4
    """share of the others in which the expert takes over at a random step"""
    early_steps: tuple[int, int] = (24, 88)
    """first and last of these steps"""
    late_step: int = 120
    """at which the expert takes over otherwise"""
    replan_steps: int = 4
    """control steps from one plan of the policy to the next"""

    def __post_init__(self) -> None:
        for name, share in (("alone", self.alone), ("early", self.early)):
            if not 0.0 <= share <= 1.0:
                raise InvalidRequest(f"--{name}", "a share from 0 to 1", share)


@dataclass(frozen=True, slots=True)
class RecordingConfig:
    """The protocol of a demonstration."""

    size: int = 128
    """height and width of the pictures"""
    picture_every: int = 4
    settling_steps: tuple[int, int] = (6, 13)
    """fewest and most; an evaluation has 10"""
    tail_steps: int = 8
    """after the success, in which the hand lets go and leaves"""
    max_steps: int | None = None
    """None: the task's own limit"""
    disturbances: Disturbances = field(default_factory=Disturbances)
    takeover: Takeover = field(default_factory=Takeover)

    def __post_init__(self) -> None:
        if self.takeover.replan_steps % self.picture_every:
            expected = f"a multiple of picture_every, {self.picture_every}"
            raise InvalidRequest("replan_steps", expected, self.takeover.replan_steps)
