"""`/docs` in a real Chromium: the example of a plan is sent as it is shown, and the service answers it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import shot_of
from tests.edge.fakes import RecordingPolicy, example_limits
from tests.edge.robots import serving
from wavserve.system.telemetry import Metrics

pytestmark = pytest.mark.system


@pytest.fixture
def address() -> Iterator[str]:
    with serving(RecordingPolicy(), example_limits(), Metrics()) as served:
        yield served.http


def test_a_plan_can_be_tried_out(browser: Browser, address: str) -> None:
    with browser.new_context(viewport={"width": 1280, "height": 1600}) as context:
        page = context.new_page()
        page.goto(f"{address}/docs")
        plan = page.locator(".opblock", has_text="/v1/plan").first
        plan.locator(".opblock-summary-control").click()
        plan.get_by_role("button", name="Try it out").click()
        plan.get_by_role("button", name="Execute").click()
        status = plan.locator(".live-responses-table tbody .response-col_status").first
        expect(status).to_contain_text("200", timeout=30_000)
        if (shot := shot_of("docs-plan")) is not None:
            page.screenshot(path=shot, full_page=True)
