"""Every overlay of deploy/kubernetes, rendered."""

from __future__ import annotations

import pytest

from tests.deploy.overlays import OVERLAYS, Overlay, rendered


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> Overlay:
    return rendered(request.param)
