"""The aims of a GPU report, from the findings of its parts. This module measures nothing and needs no GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from loadtest.aims import NOT_MEASURED, Aim, at_least, at_most, entry, prefixed

WITHOUT_OWNER = "a plan after the arena owner's process exit"
NO_ERROR = "nothing"
"""The value of the finding WITHOUT_OWNER if that plan did not fail."""


def aims_of(report: Mapping[str, Any]) -> list[Aim]:
    """The aims of every part in a report.

    A skipped part has one aim without a result. A failed part has one missed aim.
    """
    return [aim for part in AIMS if part in report for aim in prefixed(part, _aims(part, report[part]))]


def _aims(part: str, found: Mapping[str, Any]) -> list[Aim]:
    if "error" in found:
        return [entry("runs", "no error", found["error"], False)]
    if "skipped" in found:
        return [entry("runs", "no error", f"{NOT_MEASURED}: {found['skipped']}", None)]
    return AIMS[part](found)


def _parity_aims(found: Mapping[str, Any]) -> list[Aim]:
    failed, checks = len(found["failed"]), found["checks"]
    return [entry("checks within their fixtures' tolerance", "all", f"{checks - failed} of {checks}", found["ok"])]


def _difference_aims(found: Mapping[str, Any]) -> list[Aim]:
    name, differences = "largest action difference", found["action_difference"]
    if not isinstance(differences, Mapping):
        return [at_most(name, found["aim"], differences)]
    return [at_most(f"{name}, {variant}", found["aim"], each) for variant, each in differences.items()]


def _elite_aims(found: Mapping[str, Any]) -> list[Aim]:
    return [
        at_least(f"share of draws with float32's {level} elites", found["aim"], share)
        for level, share in found["same_sets"].items()
    ]


def _arena_aims(found: Mapping[str, Any]) -> list[Aim]:
    failure = found[WITHOUT_OWNER]
    return [*_difference_aims(found), entry(WITHOUT_OWNER, "an error", failure, failure != NO_ERROR)]


AIMS: Mapping[str, Callable[[Mapping[str, Any]], list[Aim]]] = {
    "parity": _parity_aims,
    "exact": _difference_aims,
    "bfloat16": _elite_aims,
    "arena": _arena_aims,
    "service": _difference_aims,
    "triton": _difference_aims,
}
"""Part -> the function that makes its aims. The part `plan` has none, because it only reports times."""
