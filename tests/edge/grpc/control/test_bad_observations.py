"""Every field of an observation wrong in turn: a typed error, the stream and the session go on, and nothing moves."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tests.edge.grpc.control.links import Link, Server
from wavserve.core.control import DropReason, ExecutionReport, ObservationDropped, StreamError
from wavserve.core.messages import ActionChunk, EncodedImage
from wavserve.core.rtc import RtcRequest
from wavserve.wire.control import client_message


def left_over(*shape: int) -> RtcRequest:
    return RtcRequest(mode="rtc_guided", prev_chunk_left_over=np.zeros(shape, np.float32))


BIG = 2**63
CASES: list[tuple[dict[str, Any], str, str]] = [
    ({"sequence": 9}, "sequence-conflict", "sequence"),
    ({"sequence": 3}, "sequence-conflict", "sequence"),
    ({"sequence": BIG}, "invalid-request", "sequence"),
    ({"sequence": BIG - 1}, "invalid-request", "sequence"),
    ({"epoch": 0}, "invalid-request", "epoch"),
    ({"epoch": 2}, "invalid-request", "epoch"),
    ({"control_step": BIG}, "invalid-request", "control_step"),
    ({"executed_steps": 10_001}, "invalid-request", "executed_steps"),
    ({"sent_mono_ns": -1}, "invalid-request", "sent_mono_ns"),
    ({"state": ()}, "invalid-request", "state"),
    ({"state": (0.0, 0.0)}, "invalid-request", "state"),
    ({"state": (0.0, math.nan, 0.0)}, "invalid-request", "state[1]"),
    ({"state": (0.0, 0.0, math.inf)}, "invalid-request", "state[2]"),
    ({"instruction": "   "}, "invalid-request", "instruction"),
    ({"instruction": "x" * 65}, "too-large", "instruction"),
    ({"prev_chunk_id": "foreign"}, "invalid-request", "prev_chunk_id"),
    ({"prev_chunk_next_index": 1}, "invalid-request", "prev_chunk_next_index"),
    ({"seed": BIG}, "invalid-request", "seed"),
    ({"deadline_ms": 0}, "invalid-request", "deadline_ms"),
    ({"imagine_chunks": 99}, "invalid-request", "imagine_chunks"),
    ({"options": {"mode": "best"}}, "invalid-request", "planner.mode"),
    ({"options": {"num_iterations": 99}}, "invalid-request", "planner.num_iterations"),
    ({"images": ()}, "invalid-request", "images"),
    ({"images": (EncodedImage("top", "raw_rgb8", bytes(192), 8, 8),)}, "invalid-request", "images"),
    (
        {"images": tuple(EncodedImage(name, "raw_rgb8", bytes(243), 9, 9) for name in ("top", "wrist"))},
        "invalid-request",
        "images.top",
    ),
    ({"rtc": left_over(7, 2)}, "invalid-request", "rtc.prev_chunk_left_over"),
    ({"rtc": left_over(3, 3)}, "invalid-request", "rtc.prev_chunk_left_over"),
    ({"rtc": RtcRequest(mode="rtc_trained")}, "invalid-request", "rtc.mode"),
    ({"rtc": RtcRequest(mode="rtc_guided", inference_delay=1)}, "invalid-request", "rtc.inference_delay"),
    (
        {"rtc": RtcRequest(mode="rtc_guided", max_guidance_weight=math.nan)},
        "invalid-request",
        "rtc.max_guidance_weight",
    ),
    ({"rtc": RtcRequest(mode="rtc_guided", execution_horizon=99)}, "invalid-request", "rtc.execution_horizon"),
]


@pytest.mark.parametrize(("changes", "name", "field"), CASES, ids=[f"{case[2]}-{i}" for i, case in enumerate(CASES)])
async def test_a_wrong_field_is_an_error_of_its_observation(
    server: Server, changes: dict[str, Any], name: str, field: str
) -> None:
    link = server.link()
    await link.open()
    await link.send(link.observation(9))
    await link.receive(ActionChunk)
    await link.send(link.observation(**{"sequence": 10, **changes}))
    error = await link.receive(StreamError)
    assert (error.name, error.fatal, error.epoch) == (name, False, 1)
    assert error.field == field or error.field.startswith(f"{field}.")
    assert error.sequence == changes.get("sequence", 10)
    assert error.expected
    assert error.actual
    await link.send(link.observation(11))
    assert (await link.receive(ActionChunk)).sequence == 11
    assert server.counted("control_observations_total", outcome=name) == 1


@pytest.mark.parametrize("name", ["mode", "prefix_attention_schedule"])
async def test_an_unknown_number_of_real_time_chunking_is_refused(server: Server, name: str) -> None:
    link = server.link()
    await link.open()
    message = client_message(link.observation(0, rtc=RtcRequest(mode="rtc_guided")))
    setattr(message.observation.rtc, name, 9)
    await link.send(message)
    error = await link.receive(StreamError)
    assert (error.name, error.field, error.sequence) == ("invalid-request", f"rtc.{name}", 0)
    assert error.actual.endswith("9'")
    await planned(link, 1)


async def test_an_observation_of_before_a_reset_is_dropped(server: Server) -> None:
    link = server.link()
    await link.open()
    again = server.link(resume_session_id=link.welcome.session_id)  # type: ignore[union-attr]
    await again.open()
    await again.send(again.observation(0, epoch=1))
    assert await again.receive(ObservationDropped) == ObservationDropped(0, DropReason.RESET, 0, 1)


async def test_a_wrong_observation_does_not_take_the_place_of_a_good_one(server: Server) -> None:
    link = server.link()
    await link.open()
    server.gate.close()
    await link.send(link.observation(0))
    await server.gate.began.wait()
    await link.send(link.observation(1), link.observation(2, state=()))
    assert (await link.receive(StreamError)).sequence == 2
    server.gate.open()
    assert [(await link.receive(ActionChunk)).sequence for _ in range(2)] == [0, 1]


async def test_the_task_of_a_wrong_observation_is_not_taken(server: Server) -> None:
    link = server.link()
    await link.open()
    await link.send(link.observation(0, instruction="throw", state=()))
    await link.receive(StreamError)
    await link.send(link.observation(1))
    first = await link.receive(ActionChunk)
    await link.send(link.observation(2, instruction="pick"))
    assert first.receipt.digests["instruction"] == (await link.receive(ActionChunk)).receipt.digests["instruction"]


async def test_without_a_task_there_is_no_plan(server: Server) -> None:
    link = server.link(instruction="")
    await link.open()
    await link.send(link.observation(0))
    assert (await link.receive(StreamError)).field == "instruction"


async def planned(link: Link, sequence: int, **changes: Any) -> ActionChunk:
    await link.send(link.observation(sequence, **changes))
    return await link.receive(ActionChunk)


async def test_a_robot_executes_one_of_the_last_eight_chunks(server: Server) -> None:
    link = server.link()
    await link.open()
    first = await planned(link, 0)
    for sequence in range(1, 8):
        await planned(link, sequence, prev_chunk_id=first.chunk_id, prev_chunk_next_index=6)
    await planned(link, 8, prev_chunk_id=first.chunk_id)
    await link.send(link.observation(9, prev_chunk_id=first.chunk_id))
    assert (await link.receive(StreamError)).field == "prev_chunk_id"
    last = await planned(link, 10)
    await link.send(link.observation(11, prev_chunk_id=last.chunk_id, prev_chunk_next_index=7))
    error = await link.receive(StreamError)
    assert (error.field, error.expected, error.actual) == ("prev_chunk_next_index", "0 to 6", "7")


@pytest.mark.parametrize(
    ("report", "field"),
    [
        (ExecutionReport(tracking_error=math.nan), "tracking_error"),
        (ExecutionReport(chunk_age_ms=-1.0), "chunk_age_ms"),
        (ExecutionReport(seam_jump=math.inf), "seam_jump"),
        (ExecutionReport(seam_jump=1e308), "seam_jump"),
        (ExecutionReport(executed_from_step=3, executed_to_step=2), "executed_to_step"),
        (ExecutionReport(starved_steps=2_000_000), "starved_steps"),
        (ExecutionReport(clamped_steps=2_000_000), "clamped_steps"),
        (ExecutionReport(faults=("x" * 201,)), "faults[0]"),
    ],
)
async def test_a_report_that_cannot_be_true_is_refused(server: Server, report: ExecutionReport, field: str) -> None:
    link = server.link()
    await link.open()
    await link.send(report)
    error = await link.receive(StreamError)
    assert (error.name, error.field, error.sequence, error.fatal) == ("invalid-request", field, None, False)
    await planned(link, 0)
