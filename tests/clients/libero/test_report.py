"""The report of a run: its table, its page, and what both say of untrained, unfinished and unusual runs."""

from __future__ import annotations

import dataclasses
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.clients.libero.runs import OFF, PAPER, delayed_cells, example_config, example_record, example_run
from wavserve.clients.libero.cells import Cell
from wavserve.clients.libero.records import Run
from wavserve.clients.libero.report.curves import against_delay, against_options
from wavserve.clients.libero.report.html import html
from wavserve.clients.libero.report.statistics import Pairs, paired_difference, success_rate
from wavserve.clients.libero.report.summary import Summary, reference_of
from wavserve.clients.libero.report.table import difference_text, markdown, rate_text
from wavserve.clients.libero.report.write import write_report
from wavserve.core.errors import InvalidRequest


def mostly(cell: Cell, suite: str, task: int, state: int) -> bool:
    """`paper` fails at one start of each suite, `off` at another two."""
    return (task, state) != (0, 0) if cell.name == "paper" else (task, state) not in {(1, 1), (1, 2)}


@pytest.fixture
def run() -> Run:
    return example_run(example_config(), mostly)


def test_the_table_has_the_papers_layout(run: Run) -> None:
    lines = markdown(Summary.of(run)).splitlines()
    assert "| cell | Spatial | Object | Goal | Long | average |" in lines
    [off] = [line for line in lines if line.startswith("| off |")]
    cells = [cell.strip() for cell in off.strip("|").split("|")]
    assert cells[1] == rate_text(success_rate(6, 8)) == "75.0 (40.9 to 92.9), n 8"
    assert cells[5].startswith("75.0 (")
    assert cells[5].endswith("n 32")


def test_a_difference_is_taken_start_by_start(run: Run) -> None:
    lines = markdown(Summary.of(run)).splitlines()
    [paper] = [line for line in lines if line.startswith("| paper minus off |")]
    expected = difference_text(paired_difference(Pairs(both=5, only_a=2, only_b=1)))
    assert paper.count(expected) == 4
    assert expected.startswith("+12.5 (")


def test_suites_stand_in_the_literatures_order_and_others_after_them() -> None:
    config = example_config(suites=("libero_object_swap", "libero_10", "libero_object"))
    summary = Summary.of(example_run(config, mostly))
    assert summary.suites == ("libero_object", "libero_10", "libero_object_swap")


def test_an_average_without_a_suite_is_none(run: Run) -> None:
    kept = tuple(one for one in run.records if (one.cell, one.suite) != ("paper", "libero_goal"))
    summary = Summary.of(Run(run.config, kept))
    [paper] = [line for line in markdown(summary).splitlines() if line.startswith("| paper |")]
    assert paper.endswith("| - | 87.5 (52.9 to 97.8), n 8 | - |")
    assert summary.num_missing(PAPER) == 8
    assert "- paper lacks 8 of 32 starts\n" in markdown(summary)
    assert " paper lacks 8 of 32 starts." in html(summary)


def test_other_seeds_are_other_episodes(run: Run) -> None:
    moved = tuple(dataclasses.replace(one, seed=8) if one.cell == "paper" else one for one in run.records)
    [difference] = Summary.of(Run(run.config, moved)).differences()
    assert difference.average.num == 0


@pytest.mark.parametrize("untrained", [True, False])
def test_untrained_weights_are_called_so(untrained: bool) -> None:
    summary = Summary.of(example_run(example_config(untrained=untrained), mostly))
    assert ("UNTRAINED" in markdown(summary)) == untrained
    assert ("<p class=untrained>UNTRAINED" in html(summary)) == untrained


def test_cells_are_held_against_those_that_differ_in_one_thing() -> None:
    cells = delayed_cells()
    guided, plain, undelayed = cells[6], cells[2], cells[0]
    assert (guided.rtc, guided.latency_ms) == ("rtc_guided", 200)
    assert reference_of(guided, cells) == plain
    assert reference_of(plain, cells) == undelayed
    assert reference_of(undelayed, cells) is None
    assert reference_of(PAPER, (PAPER, OFF)) == OFF
    assert reference_of(OFF, (PAPER, OFF)) is None
    blind_off, blind_paper = (dataclasses.replace(cell, name=f"{cell.name}-blind", blind=True) for cell in (OFF, PAPER))
    cells = (blind_off, blind_paper, OFF, PAPER)
    assert [reference_of(cell, cells) for cell in cells] == [OFF, PAPER, None, OFF]
    slow_off = dataclasses.replace(OFF, name="slow off", clock="virtual", latency_ms=300.0)
    slow_paper = dataclasses.replace(PAPER, name="slow paper", clock="virtual", latency_ms=300.0)
    assert reference_of(slow_paper, (OFF, PAPER, slow_off, slow_paper)) == slow_off


def fails_when_late(cell: Cell, suite: str, task: int, state: int) -> bool:
    return state >= cell.latency_ms / 100 - (2 if cell.rtc != "off" else 0)


def test_success_against_delay_is_a_curve_with_and_without_chunking_in_real_time() -> None:
    summary = Summary.of(example_run(example_config(cells=delayed_cells()), fails_when_late))
    without, guided = against_delay(summary)
    assert "without RTC" in without.name
    assert "with RTC (guided)" in guided.name
    assert [(x, rate.value) for x, rate in without.points] == [(0, 1.0), (100, 0.75), (200, 0.5), (300, 0.25)]
    assert [rate.value for _, rate in guided.points] == [1.0, 1.0, 1.0, 0.75]
    page = html(summary)
    [drawing] = re.findall(r"<svg.*?</svg>", page)
    assert len(ET.fromstring(drawing).findall("polyline")) == 2


def test_success_against_an_option_of_the_planner_is_a_curve() -> None:
    cells = tuple(
        Cell(name=f"k{k}n{n}", planner={"mode": "paper", "num_iterations": k, "num_video_samples": n})
        for k in (1, 3, 5)
        for n in (8, 30)
    )
    curves = against_options(Summary.of(example_run(example_config(cells=(OFF, *cells)), mostly)))
    assert {name: [len(curve.points) for curve in lines] for name, lines in curves.items()} == {
        "num_iterations": [3, 3],
        "num_video_samples": [2, 2, 2],
    }
    assert [x for x, _ in curves["num_iterations"][0].points] == [1, 3, 5]


def test_a_run_with_one_delay_has_no_curve(run: Run) -> None:
    assert against_delay(Summary.of(run)) == []
    assert "<svg" not in html(Summary.of(run))


def test_texts_of_a_run_are_no_markup() -> None:
    cells = (Cell(name="<b>off</b>", planner={"mode": "<i>off</i>"}),)
    config = example_config(cells=cells, policy="<script>alert(1)</script>", versions={"wavserve": "<u>1</u>"})
    page = html(Summary.of(example_run(config, mostly)))
    for tag in ("<b>", "<i>", "<script>", "<u>"):
        assert tag not in page


def test_every_episode_is_listed(run: Run) -> None:
    _, page = html(Summary.of(run)).split("<h2>Episodes</h2>")
    assert page.count("<td>yes</td>") == sum(one.success for one in run.records)
    assert page.count("<td class=no>no</td>") == sum(not one.success for one in run.records)


def test_what_happened_to_plans_and_what_ended_an_episode_is_told() -> None:
    config = example_config(cells=(OFF,))
    counts = {"num_lost": 31, "num_late": 32, "num_unsafe": 33}
    record = example_record(config, OFF, success=False, failure="the simulation diverged", **counts)
    summary = Summary.of(Run(config, (record,)))
    page = html(summary)
    for each in ("lost", "late", "unsafe"):
        assert page.count(f">{each}</th>") == 2  # of the cell, and of each episode
        assert page.count(f"<td>{counts[f'num_{each}']}</td>") == 2
    assert "<td class=no>the simulation diverged</td>" in page
    for text in (page, markdown(summary)):
        assert "off: 1 failed, because the simulation diverged" in text


@pytest.mark.parametrize("shift", [0.0, 0.03])
def test_shifted_starts_are_told(shift: float) -> None:
    config = example_config(cells=(OFF,), shift=shift)
    assert ("objects shifted by up to 3 cm" in markdown(Summary.of(example_run(config, mostly)))) == bool(shift)


@pytest.mark.parametrize("antialiasing", [True, False])
def test_pictures_without_antialiasing_are_told(antialiasing: bool) -> None:
    config = example_config(cells=(OFF,), antialiasing=antialiasing)
    text = markdown(Summary.of(Run(config, (example_record(config, OFF),))))
    assert ("without anti-aliasing" in text) != antialiasing


def test_an_episode_without_plans_has_a_line() -> None:
    """As when the service refused every plan: no latency, no seam, no wall times."""
    config = example_config(cells=(OFF,))
    record = example_record(config, OFF, num_plans=0, seam_jump=None, receipt_digests=(), wall={}, success=False)
    assert "Successes: 0." in html(Summary.of(Run(config, (record,))))


def test_the_report_is_written_into_the_runs_folder(run: Run, tmp_path: Path) -> None:
    page = write_report(run, tmp_path)
    assert page == tmp_path / "report" / "index.html"
    assert "paper minus off" in (tmp_path / "report" / "report.md").read_text(encoding="utf-8")


def test_a_run_without_an_episode_has_no_report(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="at least one finished episode"):
        write_report(Run(example_config(), ()), tmp_path)


def test_a_folder_that_cannot_be_written_is_told(run: Run, tmp_path: Path) -> None:
    (tmp_path / "report").write_text("in the way", encoding="utf-8")
    with pytest.raises(InvalidRequest, match="a folder that can be written"):
        write_report(run, tmp_path)
