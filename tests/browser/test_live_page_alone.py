"""`/ui` in a real Chromium while no robot plans: frames on demand, without scripts, and a gateway that stops."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, expect

from tests.browser.conftest import shot_of
from tests.browser.looks import SIZES
from tests.browser.robots import plan_without_stream
from tests.service.rig import Server, start
from wavserve.system.serve_process import READY_WITHIN_S

pytestmark = pytest.mark.system

WAIT_MS = 60_000


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service of these tests' own: elsewhere robots that have left still have cards."""
    running = start(tmp_path_factory.mktemp("alone"), "local")
    yield running
    running.stop()


@pytest.fixture
def planned(alone: Server) -> Server:
    plan_without_stream(alone.grpc)
    return alone


def test_frames_are_imagined_by_keyboard(browser: Browser, planned: Server) -> None:
    with browser.new_context(viewport=SIZES["phone"], is_mobile=True, has_touch=True) as context:
        page = context.new_page()
        page.goto(f"{planned.http}/ui")
        expect(page.locator("#connection")).to_have_text("Live.")
        button = page.get_by_role("button", name="Imagine frames").first
        button.focus()
        page.keyboard.press("Enter")
        pictures = page.locator(".imagined img")
        expect(pictures.first).to_be_visible(timeout=WAIT_MS)
        assert pictures.count() >= 4
        assert pictures.evaluate_all("all => all.every((img) => img.naturalWidth > 0 && img.alt)")
        assert page.evaluate("document.documentElement.scrollWidth") <= SIZES["phone"]["width"]
        page.wait_for_timeout(2500)  # updates leave the frames
        expect(pictures.first).to_be_visible()
        found = Axe().run(page).response["violations"]
        assert [fault["id"] for fault in found if fault["impact"] in ("serious", "critical")] == []
        if (shot := shot_of("live-frames")) is not None:
            page.screenshot(path=shot, full_page=True)


def test_it_works_without_scripts(browser: Browser, planned: Server) -> None:
    with browser.new_context(viewport=SIZES["desktop"], java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(f"{planned.http}/ui")
        expect(page.get_by_role("heading", name="Robots")).to_be_visible()
        for _ in range(30):  # nothing updates this page
            if page.locator(".curve svg").count() > 0:
                break
            page.wait_for_timeout(1000)
            page.get_by_role("link", name="Refresh").click()
        expect(page.locator(".curve svg").first).to_be_visible()
        expect(page.get_by_role("button", name="Pause")).to_be_hidden()
        page.get_by_role("button", name="Imagine frames").first.click()
        expect(page.locator("img").first).to_be_visible(timeout=WAIT_MS)
        if (shot := shot_of("live-frames-alone")) is not None:
            page.screenshot(path=shot, full_page=True)
        page.get_by_role("link", name="Back to the page").click()
        page.get_by_role("link", name="Refresh").click()
        expect(page.get_by_role("heading", name="Robots")).to_be_visible()


def test_a_gateway_that_stands_still_is_noticed(browser: Browser, planned: Server) -> None:
    """Its connections stay open, as those to a machine without power do."""
    with browser.new_context(viewport=SIZES["desktop"]) as context:
        page = context.new_page()
        page.goto(f"{planned.http}/ui")
        expect(page.locator("#connection")).to_have_text("Live.", timeout=WAIT_MS)
        planned.process.send_signal(signal.SIGSTOP)
        try:
            expect(page.locator("#connection")).to_contain_text("does not answer", timeout=WAIT_MS)
        finally:
            planned.process.send_signal(signal.SIGCONT)
        expect(page.locator("#connection")).to_have_text("Live.", timeout=WAIT_MS)


def test_a_gateway_that_stops_and_comes_back(browser: Browser, tmp_path: Path) -> None:
    with browser.new_context(viewport=SIZES["desktop"]) as context:
        page = context.new_page()
        first = start(tmp_path, "local")
        page.goto(f"{first.http}/ui")
        expect(page.locator("#connection")).to_have_text("Live.", timeout=WAIT_MS)
        assert first.stop() == 0
        expect(page.locator("#connection")).to_contain_text("trying again", timeout=WAIT_MS)
        second = subprocess.Popen(first.process.args)
        try:
            expect(page.locator("#connection")).to_have_text("Live.", timeout=1e3 * READY_WITHIN_S)
            expect(page.locator("#status")).to_contain_text(f"process {second.pid}")
        finally:
            second.terminate()
            assert second.wait(60) == 0
