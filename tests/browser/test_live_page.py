"""`/ui` in a real Chromium while robots plan: it is live, readable on every screen, and usable without a mouse."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import EVIL_NAME, shot_of
from tests.browser.looks import READ_PAGE, SIZES, Scheme, Screen
from tests.browser.robots import FakeRobot, ask_for_too_much, plan_without_stream, planning
from tests.service.rig import Server
from wavserve.core.control import HoldReason

pytestmark = pytest.mark.system

ROBOTS = (
    FakeRobot("arm-left"),
    FakeRobot("arm-right", "open the <b>drawer</b>", hold=HoldReason.OPERATOR),
    FakeRobot(EVIL_NAME),
)
WAIT_MS = 90_000


@pytest.fixture(scope="module")
def busy(gateway: Server) -> Iterator[Server]:
    """The gateway with robots that plan, a session without a stream and a refusal."""
    plan_without_stream(gateway.grpc)
    ask_for_too_much(gateway.grpc)
    with planning(gateway.grpc, ROBOTS):
        yield gateway


@dataclass(frozen=True)
class Seen:
    """What a visit saw once every robot had a plan."""

    held: dict[str, Any]
    errors: list[str]
    requested: list[str]
    faults: list[dict[str, Any]]
    """of axe: serious and critical ones"""
    width: int


def opened(browser: Browser, gateway: Server, screen: Screen = "desktop", scheme: Scheme = "light") -> Page:
    is_phone = screen == "phone"
    context = browser.new_context(
        viewport=SIZES[screen], is_mobile=is_phone, has_touch=is_phone, color_scheme=scheme, reduced_motion="reduce"
    )
    context.set_default_timeout(WAIT_MS)
    return context.new_page()


def live(page: Page, gateway: Server) -> Page:
    """The page after an update, with a plan of each robot."""
    page.goto(f"{gateway.http}/ui")
    expect(page.locator("#connection")).to_have_text("Live.", timeout=WAIT_MS)
    for robot in ROBOTS:
        card = page.locator(".card", has=page.get_by_role("heading", name=robot.name, exact=True))
        expect(card.locator(".curve svg")).to_be_visible(timeout=WAIT_MS)
    return page


@pytest.fixture(scope="module")
def seen(browser: Browser, busy: Server, screen: Screen, scheme: Scheme) -> Iterator[Seen]:
    page = opened(browser, busy, screen, scheme)
    errors: list[str] = []
    requested: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: requested.append(request.url))
    live(page, busy)
    if (shot := shot_of(f"live-{screen}-{scheme}")) is not None:
        page.screenshot(path=shot, full_page=True)
    held = page.evaluate(READ_PAGE)
    found = Axe().run(page).response["violations"]
    faults = [fault for fault in found if fault["impact"] in ("serious", "critical")]
    yield Seen(held, errors, requested, faults, SIZES[screen]["width"])
    page.context.close()


def test_the_browser_reports_nothing(seen: Seen) -> None:
    assert seen.errors == []


def test_axe_finds_no_serious_fault(seen: Seen) -> None:
    assert [(fault["id"], [node["html"] for node in fault["nodes"]]) for fault in seen.faults] == []


def test_only_the_gateway_is_asked(seen: Seen, busy: Server) -> None:
    asked = [url for url in seen.requested if not url.startswith("data:")]
    assert {url.removeprefix(busy.http) for url in asked} == {"/ui", "/ui/ui.css", "/ui/ui.js", "/ui/events"}


def test_nothing_is_wider_than_the_screen(seen: Seen) -> None:
    assert seen.held["width"] <= seen.width


def test_drawings_are_there_and_have_words(seen: Seen) -> None:
    assert seen.held["plots"] >= 3 * 8  # a curve and seven dimensions of three robots
    assert seen.held["blank"] == []
    assert seen.held["nameless"] == []


def test_text_stands_out_from_its_background(seen: Seen) -> None:
    assert seen.held["faint"] == []


def test_headings_go_down_one_level_at_a_time(seen: Seen) -> None:
    levels = [level for level, _ in seen.held["headings"]]
    assert levels[0] == 1
    assert [(above, below) for above, below in pairwise(levels) if below > above + 1] == []


def test_a_name_with_markup_is_text(browser: Browser, busy: Server) -> None:
    page = live(opened(browser, busy), busy)
    expect(page.get_by_role("heading", name=EVIL_NAME, exact=True)).to_be_visible()
    assert page.locator("img").count() == 0
    expect(page.locator(".card", has_text="open the <b>drawer</b>").first).to_be_visible()
    page.context.close()


def test_it_is_live_until_it_is_paused(browser: Browser, busy: Server) -> None:
    page = live(opened(browser, busy), busy)
    time = page.locator("#status dd").last
    card = page.locator(".card", has=page.get_by_role("heading", name="arm-left", exact=True))
    steps = card.locator("div", has_text="Steps").locator("dd").last
    before, before_steps = time.inner_text(), steps.inner_text()
    expect(time).not_to_have_text(before)
    expect(steps).not_to_have_text(before_steps, timeout=WAIT_MS)
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("#connection")).to_have_text("Paused.")
    paused = time.inner_text()
    page.wait_for_timeout(2500)
    assert time.inner_text() == paused
    page.get_by_role("button", name="Resume").click()
    expect(time).not_to_have_text(paused)
    page.context.close()


def test_it_can_be_walked_by_keyboard(browser: Browser, busy: Server) -> None:
    page = live(opened(browser, busy), busy)
    walked = []
    for _ in range(3 + len(ROBOTS)):
        page.keyboard.press("Tab")
        walked.append(page.evaluate("document.activeElement.textContent.trim()"))
    assert walked[:3] == ["Skip to the robots", "Refresh", "Pause"]
    assert set(walked[3:]) == {"Imagine frames"}
    page.wait_for_timeout(2500)  # updates leave the focus where it is
    assert page.evaluate("document.activeElement.textContent.trim()") == "Imagine frames"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.reload()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "robots"
    page.context.close()
