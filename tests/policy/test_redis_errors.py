"""What errors of the Redis client are in words, and which of them pass by themselves."""

from __future__ import annotations

import pytest
from redis import exceptions

from wavserve.policy.redis_errors import is_final, is_full, reason

PASSWORD = "s3cret"


@pytest.mark.parametrize(
    ("error", "text", "final"),
    [
        (exceptions.AuthenticationError("invalid"), "refused the user or password: load", True),
        (exceptions.NoPermissionError("no 'info'"), "refused a call: load: no 'info'", True),
        (exceptions.ResponseError("bad DB", status_code="ERR"), "refused a call: load: bad DB", True),
        (
            exceptions.ResponseError(
                f"unknown command `HELLO`, with args beginning with: `3`, `{PASSWORD}`, ", status_code="ERR"
            ),
            "refused a call: load: unknown command `HELLO`",
            True,
        ),
        (exceptions.ResponseError("MISCONF disk"), "refused a call: load: MISCONF disk", False),
        (exceptions.ReadOnlyError("replica", status_code="READONLY"), "refused a call: load: replica", False),
        (exceptions.BusyLoadingError("loading"), "did not answer: load: BusyLoadingError", False),
        (exceptions.ConnectionError(f"redis://:{PASSWORD}@h"), "did not answer: load: ConnectionError", False),
        (ValueError(PASSWORD), "did not answer: load: ValueError", False),
    ],
)
def test_an_error_is_told_without_a_password(error: Exception, text: str, final: bool) -> None:
    assert reason(error, "load") == text
    assert is_final(error) is final


def test_what_the_network_said_is_told_by_its_kind() -> None:
    error = exceptions.ConnectionError(PASSWORD)
    error.__context__ = ConnectionRefusedError(PASSWORD)
    assert reason(error, "load") == "did not answer: load: ConnectionError (ConnectionRefusedError)"


def test_a_full_redis_6_says_so_in_the_words_of_a_script() -> None:
    wrapped = "Error running script (call to f_1): @user_script:8: -OOM command not allowed when used memory"
    for error in (exceptions.OutOfMemoryError("full"), exceptions.ResponseError(wrapped, status_code="ERR")):
        assert is_full(error)
        assert not is_final(error)
    assert not is_full(exceptions.ResponseError("MISCONF disk"))
    assert not is_full(ValueError("-OOM "))
