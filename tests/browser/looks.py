"""A page in a real browser, on one screen and in one colour scheme, and what it holds there.

The module knows no page of the project and judges nothing.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from playwright.sync_api import Browser, ViewportSize, sync_playwright

Screen = Literal["desktop", "phone"]
Scheme = Literal["light", "dark"]
SIZES: Mapping[Screen, ViewportSize] = {
    "desktop": {"width": 1280, "height": 900},
    "phone": {"width": 390, "height": 844},
}
READ_PAGE = (Path(__file__).parent / "read_page.js").read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Look:
    """What one visit saw. `width` is the screen's, in CSS pixels; `held` is what READ_PAGE returns."""

    url: str
    width: int
    held: Mapping[str, Any]
    errors: tuple[str, ...]
    """Console errors and uncaught exceptions."""
    requested: tuple[str, ...]
    """Every URL that the page asked for, loaded or not."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's Chromium, headless. Raises RuntimeError when there is none."""
    program = shutil.which("chromium")
    if program is None:
        raise RuntimeError("chromium: not on the PATH; tests/system_packages.txt lists the packages to install")
    is_root = os.geteuid() == 0  # Chromium's sandbox refuses to start as root
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, chromium_sandbox=not is_root)
        try:
            yield browser
        finally:
            browser.close()


def look(browser: Browser, page: Path, screen: Screen, scheme: Scheme, shot: Path | None = None) -> Look:
    """Opens the page from its file, without a network. `shot` is where a screenshot of the whole page goes."""
    url, size = page.resolve().as_uri(), SIZES[screen]
    is_phone = screen == "phone"
    errors: list[str] = []
    requested: list[str] = []
    context = browser.new_context(
        viewport=size, is_mobile=is_phone, has_touch=is_phone, color_scheme=scheme, offline=True
    )
    with context:
        context.on("request", lambda request: requested.append(request.url))
        context.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        context.on("weberror", lambda thrown: errors.append(str(thrown.error)))
        tab = context.new_page()
        tab.goto(url)
        held = tab.evaluate(READ_PAGE)
        if shot is not None:
            tab.screenshot(path=shot, full_page=True)
    return Look(url, size["width"], held, tuple(errors), tuple(requested))
