"""Answers of a newer or broken server: what this version cannot read is an InvalidAnswer, and the rest is read."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.edge.fakes import RecordingPolicy, example_limits, example_observation
from tests.wire.test_wire import example_chunk
from wavserve.clients.calls import plan_call, policy_call, read_message
from wavserve.core.errors import InvalidAnswer
from wavserve.core.spec import LimitsSpec
from wavserve.edge.frontend import Frontend
from wavserve.pb import wavserve_pb2 as pb
from wavserve.wire import answers

UNKNOWN_FIELD = bytes([0xF8, 0x7F, 0x01])
"""field 2047, varint 1"""
READ_CHUNK = plan_call(example_observation()).read
READ_POLICY = policy_call(None).read


def chunk_message() -> pb.ActionChunk:
    return answers.action_chunk(example_chunk())


def policy_message() -> pb.PolicyInfo:
    return answers.policy_message(Frontend(RecordingPolicy(), example_limits()).info())


def changed(change: Callable[[pb.ActionChunk], object]) -> bytes:
    message = chunk_message()
    change(message)
    return message.SerializeToString()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda m: setattr(m.receipt, "stopped", 99), "receipt.stopped: .* number 99"),
        (lambda m: setattr(m.receipt, "stopped", 0), "receipt.stopped: .* number 0"),
        (lambda m: setattr(m.receipt, "deadline", 99), "receipt.deadline: .* number 99"),
        (lambda m: setattr(m.receipt, "deadline", pb.Receipt.MISSED), "receipt.deadline"),
        (lambda m: m.actions.append(0.0), "actions: expected .* numbers, got"),
        (lambda m: m.actions.pop(), "actions: expected .* numbers, got"),
        (lambda m: m.ClearField("actions"), "actions: expected .* numbers, got 0"),
        (lambda m: setattr(m, "horizon", 0), "actions"),
        (lambda m: m.actions.__setitem__(3, float("nan")), "actions: expected finite"),
        (lambda m: m.receipt.iterations[0].snr.append(1.0), "receipt.iterations.snr"),
        (lambda m: setattr(m.receipt.planner, "num_value_samples", 0), "receipt.iterations.snr"),
        (lambda m: m.ClearField("receipt"), "receipt.stopped"),
        (lambda m: m.Clear(), "actions"),
    ],
)
def test_a_chunk_that_does_not_fit_is_an_invalid_answer(change: Callable[[pb.ActionChunk], object], field: str) -> None:
    with pytest.raises(InvalidAnswer, match=field):
        READ_CHUNK(changed(change))


def test_an_answer_of_no_actions_at_all_is_an_invalid_answer() -> None:
    def empty(message: pb.ActionChunk) -> None:
        message.horizon = 0
        message.ClearField("actions")

    with pytest.raises(InvalidAnswer, match="at least one"):
        READ_CHUNK(changed(empty))


@pytest.mark.parametrize("read", [READ_CHUNK, READ_POLICY])
@pytest.mark.parametrize("raw", [b"\xff\xff\xff", b"\x0a\x05ab"])
def test_bytes_that_do_not_parse_are_an_invalid_answer(read: Callable[[bytes], object], raw: bytes) -> None:
    with pytest.raises(InvalidAnswer, match="bytes that do not parse"):
        read(raw)


def test_fields_of_a_newer_contract_are_ignored() -> None:
    chunk = READ_CHUNK(chunk_message().SerializeToString() + UNKNOWN_FIELD)
    assert chunk.actions.shape == example_chunk().actions.shape
    assert READ_POLICY(policy_message().SerializeToString() + UNKNOWN_FIELD).name == "example"
    assert read_message(pb.ResetResponse(), UNKNOWN_FIELD).session_id == ""


def test_a_bound_of_a_newer_server_is_ignored_and_a_missing_one_is_not_guessed() -> None:
    message = policy_message()
    message.bounds["max_grippers"] = 2
    assert READ_POLICY(message.SerializeToString()).bounds.max_iterations == message.bounds["max_iterations"]
    del message.bounds["max_iterations"]
    with pytest.raises(InvalidAnswer, match="max_iterations"):
        READ_POLICY(message.SerializeToString())


def test_names_without_units_are_an_invalid_answer() -> None:
    message = policy_message()
    message.state.names.append("elbow")
    with pytest.raises(InvalidAnswer, match="state: expected a unit for each name"):
        READ_POLICY(message.SerializeToString())


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda m: m.action.limits.velocity.pop(), "action.limits.velocity: expected 0 or 7 numbers, got 6"),
        (lambda m: m.action.limits.position_low.__setitem__(1, float("nan")), "action.limits.position_high"),
        (lambda m: m.action.hold.append("zero"), "action.hold: expected 0 or 7 texts, got 8"),
        (lambda m: m.action.hold.__setitem__(0, "stay"), "action.hold: expected one of last, zero, got 'stay'"),
        (lambda m: setattr(m.rtc, "mode", 99), "rtc.mode: expected one of off, rtc_guided, rtc_trained, got number 99"),
        (lambda m: m.ClearField("rtc"), "rtc.mode: .* number 0"),
        (lambda m: setattr(m.rtc, "prefix_attention_schedule", 99), "rtc.prefix_attention_schedule: .* number 99"),
    ],
)
def test_facts_for_motion_that_do_not_fit_are_an_invalid_answer(
    change: Callable[[pb.PolicyInfo], object], field: str
) -> None:
    message = policy_message()
    change(message)
    with pytest.raises(InvalidAnswer, match=field):
        READ_POLICY(message.SerializeToString())


def test_a_mode_of_a_newer_server_is_ignored() -> None:
    message = policy_message()
    message.rtc_modes.append(99)  # type: ignore[arg-type]  # open
    assert READ_POLICY(message.SerializeToString()).rtc_modes == ("off", "rtc_guided", "rtc_trained")


def test_limits_that_are_not_stated_are_none() -> None:
    message = policy_message()
    message.action.ClearField("limits")
    assert READ_POLICY(message.SerializeToString()).action.limits == LimitsSpec()
