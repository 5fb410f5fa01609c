"""Our errors on a wire that carries only text."""

from __future__ import annotations

import pytest

from wavserve.core import remote_errors
from wavserve.core.errors import (
    BackendError,
    BrokenLimit,
    DeadlineExceeded,
    InvalidRequest,
    MissedDeadline,
    Overloaded,
    SettingsError,
    UnsafeChunk,
    WavserveError,
    error_kinds,
)


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


@pytest.mark.parametrize(
    "error",
    [
        Overloaded("full", 2.5, 0.75),
        Overloaded("full", 0.0),
        DeadlineExceeded("late", MissedDeadline(-5.5, 1, 2, 3)),
        DeadlineExceeded("refused"),
        UnsafeChunk("unsafe", BrokenLimit(3, 2, "joint_2", "jerk", 1.5, -2e9)),
    ],
)
def test_an_errors_facts_survive(error: WavserveError) -> None:
    back = remote_errors.decode(remote_errors.encode(error))
    assert type(back) is type(error)
    assert vars(back) == vars(error)


@pytest.mark.parametrize("kind", error_kinds().values())
def test_every_error_of_the_tree_survives(kind: type[WavserveError]) -> None:
    error = kind("f", "e", "a") if issubclass(kind, InvalidRequest) else kind("m")
    back = remote_errors.decode(remote_errors.encode(error))
    assert (type(back), vars(back)) == (kind, vars(error))


@pytest.mark.parametrize("facts", ['"retry_after_s": "soon"', '"retry_after_s": NaN', '"retry_after_s": [1]'])
def test_facts_that_cannot_be_read_are_left_out(facts: str) -> None:
    back = remote_errors.decode(f'wavserve-error:{{"error": "overloaded", "message": "full", {facts}}}')
    assert isinstance(back, Overloaded)
    assert (back.message, back.retry_after_s) == ("full", 1.0)


@pytest.mark.parametrize("fact", ["step", "dimension", "bound", "value"])
@pytest.mark.parametrize("sent", ['"much"', "NaN", "null", "[1]"])
def test_an_unsafe_chunk_whose_facts_do_not_parse_is_one_without_facts(fact: str, sent: str) -> None:
    facts = {"step": "3", "dimension": "2", "name": '"a"', "limit": '"jerk"', "bound": "1.5", "value": "2"}
    text = ", ".join(f'"{name}": {value}' for name, value in (facts | {fact: sent}).items())
    back = remote_errors.decode(f'wavserve-error:{{"error": "unsafe-chunk", "message": "m", {text}}}')
    assert isinstance(back, UnsafeChunk)
    assert (back.message, back.broken) == ("m", None)


@pytest.mark.parametrize("letter", ["x", "日", "🤖", "\x00", '"'])
def test_a_long_error_becomes_a_short_line(letter: str) -> None:
    """Triton sends the line in a header."""
    long = letter * 100_000
    for error in (BackendError(long), InvalidRequest(long, long, long)):
        line = remote_errors.encode(error)
        assert len(line) < 16_000
        back = remote_errors.decode(line)
        assert type(back) is type(error)
        assert back.message.startswith(letter * 50)


def test_a_text_is_cut_between_two_characters() -> None:
    assert remote_errors.cut("日本語", 9) == "日本語"
    assert remote_errors.cut("日本語語", 9) == "日本..."
    assert remote_errors.cut("日本語語", 8) == "日..."
