"""The project's pages in a real Chromium: whole, offline, readable, and fit for a phone."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.browser.looks import Look

pytestmark = pytest.mark.system


def test_the_browser_reports_no_error(seen: Look) -> None:
    assert seen.errors == ()


def test_nothing_is_fetched_but_the_page_itself(seen: Look) -> None:
    assert [url for url in seen.requested if not url.startswith("data:")] == [seen.url]


def test_pictures_and_plots_are_there(seen: Look) -> None:
    assert seen.held["images"] + seen.held["plots"] > 0
    assert seen.held["broken"] == []
    assert seen.held["blank"] == []


def test_videos_can_be_played(seen: Look, name: str) -> None:
    assert seen.held["videos"] == (2 if name == "libero" else 0)
    assert seen.held["unplayable"] == []


def test_nothing_is_wider_than_the_screen(seen: Look) -> None:
    assert seen.held["width"] <= seen.width


def test_pictures_and_plots_have_words(seen: Look) -> None:
    assert seen.held["nameless"] == []


def test_headings_go_down_one_level_at_a_time(seen: Look) -> None:
    levels = [level for level, _ in seen.held["headings"]]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert [(above, below) for above, below in pairwise(levels) if below > above + 1] == []


def test_text_stands_out_from_its_background(seen: Look) -> None:
    assert seen.held["faint"] == []


def test_the_document_names_its_language_its_title_and_its_viewport(seen: Look) -> None:
    assert seen.held["lacking"] == []
