"""A look finds the faults it looks for: a page that has each of them once."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.browser.looks import look

pytestmark = pytest.mark.system

BAD_PAGE = """<!doctype html><html><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<style>
body { background: #fff; color: #bbb } @media (prefers-color-scheme: dark) { body { color: #000 } }
</style></head><body><h2>Pale</h2><div style="width: 600px">wide</div>
<img src="http://192.0.2.1/far.png" width="20" height="20">
<svg width="50" height="50" aria-label="nothing drawn"></svg>
<svg width="50" height="50"><rect width="9" height="9"/></svg>
<video src="data:video/mp4;base64,AAAA" width="30" height="30"></video>
<script>console.error("logged"); throw new Error("thrown")</script></body></html>"""


@pytest.fixture
def bad_page(tmp_path: Path) -> Path:
    page = tmp_path / "bad.html"
    page.write_text(BAD_PAGE, encoding="utf-8")
    return page


def test_each_fault_is_found(browser: Browser, bad_page: Path) -> None:
    seen = look(browser, bad_page, "phone", "light")
    assert seen.requested == (bad_page.as_uri(), "http://192.0.2.1/far.png")
    assert {"logged", "thrown"} <= set(seen.errors)
    assert seen.held["width"] >= 600 > seen.width
    assert seen.held["lacking"] == ["html[lang]", "title"]
    assert seen.held["broken"] == ['img "", 20 x 20']
    assert seen.held["blank"] == ['svg "nothing drawn", 50 x 50']
    assert seen.held["unplayable"] == ['video "", 30 x 30']
    assert seen.held["nameless"] == ['video "", 30 x 30', 'img "", 20 x 20', 'svg "", 50 x 50']
    assert seen.held["headings"] == [[2, "Pale"]]
    assert [name.split(",")[0] for name in seen.held["faint"]] == ['h2 "Pale"']


def test_a_colour_scheme_is_the_one_asked_for(browser: Browser, bad_page: Path) -> None:
    assert look(browser, bad_page, "desktop", "dark").held["faint"] == []


def test_a_screenshot_shows_the_whole_page(browser: Browser, bad_page: Path, tmp_path: Path) -> None:
    shot = tmp_path / "shots" / "bad.png"
    look(browser, bad_page, "desktop", "light", shot)
    assert shot.read_bytes().startswith(b"\x89PNG")
