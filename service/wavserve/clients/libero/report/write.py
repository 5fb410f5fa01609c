"""Writes the report of a run into its folder: `report.md`, `index.html` and `videos/`. Knows no simulator."""

from __future__ import annotations

from pathlib import Path

from wavserve.clients.libero.records import REPORT_FOLDER, Run
from wavserve.clients.libero.report.html import html
from wavserve.clients.libero.report.recording import Render
from wavserve.clients.libero.report.summary import Summary
from wavserve.clients.libero.report.table import markdown
from wavserve.clients.libero.report.video import Told, write_videos
from wavserve.core.errors import InvalidRequest

TABLE_FILE, PAGE_FILE = "report.md", "index.html"


def write_report(
    run: Run, folder: Path, render: Render | None = None, num_videos: int = 0, told: Told = lambda words: None
) -> Path:
    """Writes the report of a run, finished or not, and returns its page.

    `render` makes pictures of recorded states, for at most `num_videos` videos. Videos of earlier reports stay. Table
    and page are there before the first video is made, which may fail. `told` hears of each video that is being made.
    Raises InvalidRequest for a run without an episode, for states that cannot be read, and when a file cannot be
    written.
    """
    if not run.records:
        raise InvalidRequest(str(folder), "a run with at least one finished episode", "none")
    summary, report = Summary.of(run), folder / REPORT_FOLDER
    try:
        report.mkdir(parents=True, exist_ok=True)
        (report / TABLE_FILE).write_text(markdown(summary), encoding="utf-8")
        page = report / PAGE_FILE
        page.write_text(html(summary, write_videos(run, folder, None, 0, told)), encoding="utf-8")
        if render is not None:
            page.write_text(html(summary, write_videos(run, folder, render, num_videos, told)), encoding="utf-8")
    except OSError as error:
        raise InvalidRequest(str(report), "a folder that can be written", error) from error
    return page
