"""The gain of planning, from the scores in a receipt."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.edge.fakes import example_receipt, example_spec
from tests.planning.rig import example_request
from wavserve.core.types import IterationRecord, Receipt


def receipt(*iterations: IterationRecord) -> Receipt:
    return replace(example_receipt(example_spec(), example_request(example_spec())), iterations=iterations)


def iteration(*scores: float) -> IterationRecord:
    return IterationRecord(np.array(scores, np.float32)[:, None], (), (), 1.0, 1.0, 0.0)


def test_the_gain_is_the_best_of_the_last_iteration_minus_the_best_of_the_first() -> None:
    assert receipt(iteration(1.0, 3.0), iteration(9.0), iteration(2.0, 2.5)).gain == pytest.approx(-0.5)


def test_nothing_scored_is_no_gain() -> None:
    nothing = IterationRecord(np.zeros((0, 2), np.float32), (), (), 1.0, 1.0, 0.0)
    assert receipt(nothing, nothing).gain is None
