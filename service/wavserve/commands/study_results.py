"""What a model card takes from the `results.json` of a study. Other entries of the file are left out."""

from __future__ import annotations

from dataclasses import dataclass

from wavserve.clients.libero.report.statistics import Estimate


@dataclass(frozen=True, slots=True)
class StudyCell:
    """A way of planning, or a baseline, on the starts of a part."""

    name: str
    planner: dict[str, object]
    success: Estimate
    minus_off: Estimate | None
    """against no planning, start by start; None: there is no such difference"""
    blind: bool = False
    """the policy saw grey pictures"""


@dataclass(frozen=True, slots=True)
class StudyPart:
    """Cells on the same starts."""

    title: str
    cells: tuple[StudyCell, ...]


@dataclass(frozen=True, slots=True)
class StudyBudget:
    """What the study was about."""

    policy_digest: str


@dataclass(frozen=True, slots=True)
class StudyResults:
    """All of it."""

    parts: tuple[StudyPart, ...]
    budget: StudyBudget
