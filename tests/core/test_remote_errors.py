"""Our errors on a wire that carries only text."""

from __future__ import annotations

import pytest

from wavserve.core import remote_errors
from wavserve.core.errors import BackendError, InvalidRequest, SettingsError, WavserveError


@pytest.mark.parametrize(
    "error", [BackendError('a "quoted" {brace}'), InvalidRequest("images.top", "480x640", "1x1"), SettingsError("ä")]
)
def test_an_error_survives_a_wire_that_carries_only_text(error: WavserveError) -> None:
    back = remote_errors.decode(
        f"failed to load 'x': TritonModelException: {remote_errors.encode(error)}\n\nAt:\n  model.py(1): f\n"
    )
    assert type(back) is type(error)
    assert vars(back) == vars(error)


@pytest.mark.parametrize("text", ["", "no error", "wavserve-error:", "wavserve-error:{}", "wavserve-error:[1]"])
def test_other_text_is_not_taken_for_one_of_our_errors(text: str) -> None:
    assert remote_errors.decode(text) is None
