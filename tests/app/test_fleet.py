"""What the log says while the devices of a service come up."""

from __future__ import annotations

import logging

import pytest

from wavserve.app.fleet import announce_loading
from wavserve.app.settings import Settings


@pytest.mark.parametrize(
    ("compiles", "words"),
    [("auto", "the first start may take 3 minutes"), ("on", "compiling them for this machine"), ("off", "")],
)
def test_a_start_says_that_it_may_compile_for_minutes(
    compiles: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        announce_loading(Settings.model_validate({"backend": {"compile": compiles}}))
    assert "loading the models" in caplog.text
    assert words in caplog.text
    assert ("compiling" in caplog.text) == bool(words)
