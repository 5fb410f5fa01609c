"""The entries of the list `aims`: limits, missing measurements, and the table."""

from __future__ import annotations

import json

import numpy as np
import pytest

from loadtest import aims


@pytest.mark.parametrize(("seen", "met"), [(4.9, True), (5.0, True), (5.1, False)])
def test_an_upper_limit(seen: float, met: bool) -> None:
    assert aims.at_most("p99, ms", 5.0, seen) == {"name": "p99, ms", "aim": "<= 5", "seen": seen, "met": met}


@pytest.mark.parametrize(("seen", "met"), [(2.4, False), (2.5, True), (2.6, True)])
def test_a_lower_limit(seen: float, met: bool) -> None:
    assert aims.at_least("speed-up", 2.5, seen) == {"name": "speed-up", "aim": ">= 2.5", "seen": seen, "met": met}


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    found = [aims.at_most("a", 1.0, None), aims.at_least("b", 1.0, None)]
    assert [(aim["seen"], aim["met"]) for aim in found] == [("not measured", None)] * 2
    assert aims.none_missed(found)
    assert not aims.none_missed([*found, aims.at_most("c", 1.0, 2.0)])


def test_an_entry_of_numpy_numbers_is_json() -> None:
    assert json.loads(json.dumps(aims.at_most("a", 1.0, np.float64(0.5))))["met"] is True


def test_a_part_is_named_before_its_aims() -> None:
    [aim] = aims.prefixed("plan", [aims.at_most("a", 1.0, 0.5)])
    assert aim == aims.at_most("plan: a", 1.0, 0.5)


def test_the_table_has_one_line_per_aim() -> None:
    rows = [aims.entry("a", "0", "3: text", False), aims.at_least("bb", 1.0, 2.0), aims.at_most("c", 1e-4, None)]
    assert aims.table(rows).splitlines() == [
        "criterion  aim        seen          met",
        "a          0          3: text       NO",
        "bb         >= 1       2             yes",
        "c          <= 0.0001  not measured  -",
    ]
