"""Error details on the wire: what a newer or broken server sends is still a typed error, and details are bounded."""

from __future__ import annotations

import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from wavserve.core.errors import DeadlineExceeded, InvalidRequest, MissedDeadline, Overloaded, WavserveError
from wavserve.wire.errors import pack_details, status_text, unpack_error

LONG = {"ascii": "x" * 100_000, "two bytes": "é" * 100_000, "three": "日" * 100_000, "four": "🤖" * 100_000}


def unpacked(reason: str, message: str = "m", **facts: str) -> WavserveError:
    error = unpack_error(pack_details(8, message, reason, {}) if not facts else details(reason, message, facts))
    assert error is not None
    return error


def details(reason: str, message: str, facts: dict[str, str]) -> bytes:
    """Details with any facts: `pack_details` packs only those of our own server."""
    status = status_pb2.Status(code=8, message=message)
    info = error_details_pb2.ErrorInfo(reason=reason.upper().replace("-", "_"), domain="wavserve", metadata=facts)
    status.details.add().Pack(info)
    packed: bytes = status.SerializeToString()
    return packed


@pytest.mark.parametrize("retryable", ["true", "false"])
def test_an_unknown_error_of_a_newer_server_keeps_its_text_and_its_id(retryable: str) -> None:
    error = unpacked("gripper-lost", "the gripper is lost", error_id="urn:uuid:7", retryable=retryable)
    assert type(error) is WavserveError
    assert (error.message, error.error_id) == ("the gripper is lost (urn:uuid:7)", "urn:uuid:7")
    assert error.retryable == (retryable == "true")


@pytest.mark.parametrize("reason", ["overloaded", "invalid-request", "deadline-exceeded", "not-ready"])
def test_every_error_has_the_id_of_the_servers_log(reason: str) -> None:
    assert unpacked(reason, error_id="urn:uuid:7").error_id == "urn:uuid:7"
    assert unpacked(reason).error_id is None


@pytest.mark.parametrize("number", ["soon", "", "nan", "inf", "1e999", "9" * 5000, "-1"])
def test_a_retry_time_that_cannot_be_waited_for_is_not_taken(number: str) -> None:
    error = unpacked("overloaded", "full", retry_after_s=number, predicted_s=number)
    assert isinstance(error, Overloaded)
    assert 0 <= error.retry_after_s <= 1.0
    assert error.predicted_s in (None, -1.0)


@pytest.mark.parametrize(
    "facts",
    [
        {"slack_ms": "late"},
        {"slack_ms": "-5.0"},
        {"slack_ms": "-5.0", "iterations_done": "x", "num_video_samples": "2", "num_value_samples": "3"},
        {"slack_ms": "nan", "iterations_done": "1", "num_video_samples": "2", "num_value_samples": "3"},
    ],
)
def test_a_missed_deadline_with_facts_that_do_not_parse_is_one_without_facts(facts: dict[str, str]) -> None:
    error = unpacked("deadline-exceeded", "late", **facts)
    assert isinstance(error, DeadlineExceeded)
    assert (error.message, error.missed) == ("late", None)


def test_a_missed_deadline_survives_the_wire() -> None:
    facts = {"slack_ms": "-5.5", "iterations_done": "1", "num_video_samples": "2", "num_value_samples": "3"}
    error = unpack_error(pack_details(4, "late", "deadline-exceeded", facts))
    assert isinstance(error, DeadlineExceeded)
    assert error.missed == MissedDeadline(-5.5, 1, 2, 3)


def test_bad_input_without_a_field_keeps_the_servers_text() -> None:
    error = unpacked("invalid-request", "the request is odd")
    assert isinstance(error, InvalidRequest)
    assert (error.field, error.actual) == ("request", "the request is odd")


def test_details_that_do_not_parse_inside_are_ignored() -> None:
    broken = any_pb2.Any(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\xff\xff")
    assert unpack_error(status_pb2.Status(details=[broken]).SerializeToString()) is None


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_details_and_message_together_fit_into_grpcs_headers(text: str) -> None:
    facts = {"error_id": "urn:uuid:7", "retryable": "false", "field": text, "expected": text, "actual": text}
    packed = pack_details(3, text, "invalid-request", facts | {f"fact{i}": text for i in range(50)})
    num_encoded = 3 * len(status_text(text).encode()) + len(packed) * 4 / 3
    assert num_encoded < 8 * 1024 - 512  # the other headers
    error = unpack_error(packed)
    assert isinstance(error, InvalidRequest)
    assert error.error_id == "urn:uuid:7"
    for kept in (error.field, error.expected, error.actual, status_text(text)):
        assert kept.endswith("...")
        assert kept[:50] == text[:50]


def test_a_short_message_is_sent_as_it_is() -> None:
    assert status_text("ä" * 400) == "ä" * 400
    assert status_text("a\ud800") == "a\\ud800"
