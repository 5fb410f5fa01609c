"""The report of a run: hostile texts, broken lines, a long run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clients.piper.logs import START, chunk_line, tick, write
from wavserve.clients.piper import figures
from wavserve.clients.piper.report import html
from wavserve.core.charts import MAX_POINTS, thinned
from wavserve.core.errors import InvalidRequest


def test_figures_count_what_the_lines_say(tmp_path: Path) -> None:
    lines = [START, chunk_line(), *(tick(i) for i in range(10))]
    lines += [tick(10, command=[0.3, 0.02], seam=0.01), tick(12, source="hold", starved=True)]
    lines.append({"t": 1.0, "kind": "hold", "why": "link lost", "before": "", "step": 3})
    lines.append({"t": 1.0, "kind": "log_dropped", "lines": 7})
    told = figures.figures(figures.read(write(tmp_path / "run.jsonl", lines, '{"kind": "ti')))
    assert (told.num_ticks, told.num_executed, told.num_like_chunk) == (12, 11, 10)
    assert told.period_ms[0] == pytest.approx(1000 / 30)
    assert told.largest_step == pytest.approx(0.21 / 0.05)
    assert (told.num_holds, told.num_pauses, told.num_lost_lines) == (1, 1, 8)
    assert told.seam_jumps == (1, 0.01, 0.01)
    assert told.latency_s == (0.2, 0.2)


def test_real_time_chunking_is_told_with_the_chunks_that_came_late(tmp_path: Path) -> None:
    start = START | {"rtc": {"mode": "rtc_guided"}}
    asked = [{"t": 0.0, "kind": "asked", "sequence": i, "step": i, "ages_ms": {}, "left_over": i} for i in range(4)]
    chunks = [chunk_line(sequence=i, frozen=i, step=7, first_step=5) for i in range(4)]
    chunks.append(chunk_line(sequence=4, refused="expired"))
    told = figures.figures(figures.read(write(tmp_path / "run.jsonl", [start, *asked, *chunks])))
    assert (told.rtc_mode, told.num_continued, told.num_late) == ("rtc_guided", 3, 1)
    words = dict(figures.rows(told))["real-time chunking"]
    assert words == "rtc_guided: 3 of 4 played chunks continue the one before, 1 of them came later than expected"


def test_the_last_run_of_a_log_is_told_over_its_rotated_files(tmp_path: Path) -> None:
    write(tmp_path / "run.jsonl.1", [START, tick(0), START, tick(1), tick(2)])
    write(tmp_path / "run.jsonl", [tick(3)])
    assert [line["step"] for line in figures.read(tmp_path / "run.jsonl").of("tick")] == [1, 2, 3]


@pytest.mark.parametrize("text", ["", "not json\n", '{"kind": 3}\n[1]\n', '{"kind": "tick"}\n'])
def test_a_file_that_is_no_log_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(InvalidRequest, match="a log of `wavserve piper`"):
        figures.read(tmp_path / "run.jsonl")


def test_texts_of_a_log_are_no_markup(tmp_path: Path) -> None:
    fault = {"t": 0.1, "kind": "fault", "arm": "<img src=x>", "faults": ["<u>hot</u>"]}
    page = html(figures.read(write(tmp_path / "run.jsonl", [START, tick(0), tick(1), fault])))
    for tag in ("<b>", "<i>", "<script>", "<img", "<u>"):
        assert tag not in page


def test_a_run_without_ticks_has_a_page(tmp_path: Path) -> None:
    page = html(figures.read(write(tmp_path / "run.jsonl", [START])))
    assert "Figures" in page
    assert "nan" not in page


def test_numbers_of_one_are_singular(tmp_path: Path) -> None:
    fault = {"t": 0.1, "kind": "fault", "arm": "left", "faults": ["hot"]}
    lines = [START, chunk_line(), tick(0, seam=0.1), tick(1), fault]
    told = dict(figures.rows(figures.figures(figures.read(write(tmp_path / "run.jsonl", lines)))))
    assert told["faults"] == "1 fault, 1 emergency stop"
    assert told["seams"].startswith("1 change of chunks, jump p50 10.000%")


def test_a_long_line_is_thinned_and_keeps_its_jumps() -> None:
    points = [(i / 30, 0.0) for i in range(100_000)]
    points[54_321] = (54_321 / 30, 9.0)
    kept = thinned(points)
    assert len(kept) <= MAX_POINTS
    assert (54_321 / 30, 9.0) in kept
    assert kept == sorted(kept)
