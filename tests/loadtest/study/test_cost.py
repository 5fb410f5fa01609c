"""Times of plans are measured once in a study."""

from __future__ import annotations

from pathlib import Path

from loadtest.study.cost import CostOfK, costs_on_file


def test_a_study_that_goes_on_tells_the_times_that_it_has_measured(tmp_path: Path) -> None:
    file, times = tmp_path / "costs.json", iter([20.0, 99.0])

    def measure() -> list[CostOfK]:
        return [CostOfK(k, next(times), 30.0, 500.0) for k in (3,)]

    first = costs_on_file(file, measure)
    assert first == [CostOfK(3, 20.0, 30.0, 500.0)]
    assert costs_on_file(file, measure) == first
