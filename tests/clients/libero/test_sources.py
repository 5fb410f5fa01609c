"""What the sources of plans ask of a service, and what ends an episode of theirs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.clients.chunks import chunk_of, line
from tests.clients.gateways import POLICY, Gateway, Stream, gateway
from tests.clients.libero.examples import LIBERO_POLICY
from wavserve.clients.libero.plan_source import EpisodePlan, SourceConfig, UnarySource
from wavserve.clients.libero.stream_source import StreamSource
from wavserve.core.control import ControlObservation, DropReason, GoAway, ObservationDropped, StreamError
from wavserve.core.errors import ContractMismatch, InvalidRequest, NotReady, UnsafeChunk, WavserveError
from wavserve.core.messages import ActionChunk, Observation, PolicyInfo
from wavserve.core.rendezvous import ranked
from wavserve.core.rtc import RtcRequest
from wavserve.core.spec import CameraSpec

CONFIG = SourceConfig(rotation=0, options={"num_iterations": 1})


def request_at(step: int, executed: int = 0, policy: PolicyInfo = POLICY, **changes: Any) -> EpisodePlan:
    """Pictures whose first row is 255 and whose others are 0."""
    picture = np.zeros((policy.cameras[0].height, policy.cameras[0].width, 3), np.uint8)
    picture[0] = 255
    images = {camera.name: picture for camera in policy.cameras}
    state = np.zeros(len(policy.state.names))
    seen = EpisodePlan(images=images, state=state, control_step=step, executed_steps=executed, seed=40 + step)
    return replace(seen, **changes)


class Planner:
    """Answers with one chunk, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Observation] = []
        self.ended: list[str] = []
        self.digest = LIBERO_POLICY.digest

    def plan(self, observation: Observation) -> ActionChunk:
        self.asked.append(observation)
        chunk = chunk_of(line(0, 1, 16, 7), observation.control_step, observation.sequence)
        session_id = observation.session_id or f"session-{len(self.asked)}"
        return replace(chunk, session_id=session_id, receipt=replace(chunk.receipt, policy_digest=self.digest))

    def end(self, session_id: str) -> None:
        self.ended.append(session_id)

    def policy(self) -> PolicyInfo:
        return LIBERO_POLICY

    def close(self) -> None: ...


def test_an_episode_has_a_session_of_its_own() -> None:
    planner = Planner()
    source = UnarySource(planner, LIBERO_POLICY, CONFIG)
    for instruction in ("pick", "place"):
        source.begin(instruction)
        source.plan(request_at(0, policy=LIBERO_POLICY))
        source.plan(request_at(8, 8, policy=LIBERO_POLICY))
    seen = [(each.instruction, each.session_id, each.sequence, each.control_step) for each in planner.asked]
    assert seen == [
        ("pick", None, 0, 0),
        ("pick", "session-1", 1, 8),
        ("place", None, 0, 0),
        ("place", "session-3", 1, 8),
    ]
    assert [(each.executed_steps, each.seed) for each in planner.asked[:2]] == [(0, 40), (8, 48)]
    assert {each.deadline_ms for each in planner.asked} == {None}
    assert planner.asked[0].options["num_iterations"] == 1


def test_a_session_ends_with_its_episode() -> None:
    """A service keeps a number of sessions, and refuses further ones."""
    planner = Planner()
    with closing(UnarySource(planner, LIBERO_POLICY, CONFIG)) as source:
        for _ in range(2):
            source.begin("pick")
            source.plan(request_at(0, policy=LIBERO_POLICY))
        assert planner.ended == ["session-1"]
    assert planner.ended == ["session-1", "session-2"]
    source.close()
    assert len(planner.ended) == 2


def test_a_service_that_is_away_ends_no_episode_that_is_over() -> None:
    class Away(Planner):
        def end(self, session_id: str) -> None:
            raise NotReady("away")

    source = UnarySource(Away(), LIBERO_POLICY, CONFIG)
    source.plan(request_at(0, policy=LIBERO_POLICY))
    source.close()


def test_a_plan_of_another_policy_ends_the_run() -> None:
    planner = Planner()
    source = UnarySource(planner, LIBERO_POLICY, CONFIG)
    planner.digest = "e" * 64
    with pytest.raises(ContractMismatch, match="policy_digest"):
        source.plan(request_at(0, policy=LIBERO_POLICY))


def is_turned(observation: Observation) -> bool:
    """Whether the row of 255 is the last one, in every picture."""
    assert {image.encoding for image in observation.images} == {"raw_rgb8"}
    [turned] = {image.data[-1] == 255 and image.data[0] == 0 for image in observation.images}
    return turned


@pytest.mark.parametrize("orientation", ["as_captured", "rotated_180"])
@pytest.mark.parametrize("rotation", [0, 180])
def test_pictures_are_turned_by_the_rotation(orientation: Any, rotation: int) -> None:
    cameras = tuple(CameraSpec(name, 32, 32, orientation=orientation) for name in ("agentview", "wrist"))
    planner, policy = Planner(), replace(LIBERO_POLICY, cameras=cameras)
    UnarySource(planner, policy, replace(CONFIG, rotation=rotation)).plan(request_at(0, policy=policy))
    assert is_turned(planner.asked[0]) == (rotation == 180)


@pytest.fixture
def served() -> Iterator[Gateway]:
    with gateway() as running:
        yield running


@pytest.fixture
def source(served: Gateway) -> Iterator[StreamSource]:
    with closing(StreamSource(served.address, "sim", POLICY, CONFIG)) as opened:
        yield opened


def test_an_episode_has_a_stream_of_its_own(served: Gateway, source: StreamSource) -> None:
    for instruction in ("pick", "place"):
        source.begin(instruction)
        assert source.plan(request_at(0)).sequence == 0
        assert source.plan(request_at(8, 8)).sequence == 1
    assert [stream.hello.resume_session_id for stream in served.streams] == [None, None]
    seen = [observation for stream in served.streams for observation in stream.observations]
    assert [(each.instruction, each.sequence, each.control_step) for each in seen] == [
        *(("pick", 0, 0), ("pick", 1, 8), ("place", 0, 0), ("place", 1, 8))
    ]
    assert [(each.executed_steps, each.seed, each.deadline_ms) for each in seen[:2]] == [(0, 40, None), (8, 48, None)]
    assert seen[0].options["num_iterations"] == 1
    assert not is_turned(seen[0])


def test_a_stream_turns_pictures_too(served: Gateway) -> None:
    with closing(StreamSource(served.address, "sim", POLICY, replace(CONFIG, rotation=180))) as source:
        source.begin("pick")
        source.plan(request_at(0))
    assert is_turned(served.stream.observations[0])


def test_a_left_over_travels_with_its_delay(served: Gateway) -> None:
    left_over = np.ones((8, len(POLICY.action.names)), np.float32)
    rtc = RtcRequest(mode="rtc_guided", inference_delay=3, prev_chunk_left_over=left_over)
    with closing(StreamSource(served.address, "sim", POLICY, replace(CONFIG, rtc_mode="rtc_guided"))) as source:
        source.begin("pick")
        source.plan(request_at(0))
        source.plan(request_at(8, 8, rtc=rtc))
    first, second = (observation.rtc for observation in served.stream.observations)
    assert first is not None
    assert (first.mode, len(first.prev_chunk_left_over)) == ("rtc_guided", 0)
    assert second is not None
    assert (second.mode, second.inference_delay) == ("rtc_guided", 3)
    assert (second.prev_chunk_left_over == left_over).all()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (lambda seen: ObservationDropped(seen.sequence, DropReason.OVERLOADED, epoch=seen.epoch or 0), NotReady),
        (lambda seen: GoAway(1000, "the server stops"), NotReady),
        (
            lambda seen: StreamError(
                name="invalid-request", message="m", sequence=seen.sequence, field="state", expected="a", actual="b"
            ),
            InvalidRequest,
        ),
    ],
    ids=["dropped", "go-away", "error"],
)
def test_a_plan_that_does_not_come_is_an_error(
    served: Gateway, source: StreamSource, answer: Any, error: type[WavserveError]
) -> None:
    def refuse(stream: Stream, seen: ControlObservation) -> None:
        stream.send(answer(seen))

    source.begin("pick")
    served.answer = refuse
    with pytest.raises(error):
        source.plan(request_at(0))


def test_a_service_that_lives_and_does_not_answer_is_waited_for_no_longer(served: Gateway) -> None:
    served.answer = lambda stream, seen: None
    with closing(StreamSource(served.address, "sim", POLICY, CONFIG, answer_timeout_s=0.2)) as source:
        source.begin("pick")
        with pytest.raises(NotReady, match=r"no answer on the stream within 0\.2 s"):
            source.plan(request_at(0))


def test_after_an_unsafe_plan_a_stream_goes_on(served: Gateway, source: StreamSource) -> None:
    """The session does not have the refused observation: what was executed counts from the one before."""

    def refuse(stream: Stream, seen: ControlObservation) -> None:
        stream.send(StreamError(name="unsafe-chunk", message="m", sequence=seen.sequence, retryable=True))

    source.begin("pick")
    source.plan(request_at(0))
    served.answer = refuse
    with pytest.raises(UnsafeChunk):
        source.plan(request_at(4, 4))
    served.answer = Gateway.answer
    assert source.plan(request_at(6, 6)).sequence == 2
    source.plan(request_at(10, 4))
    assert [each.executed_steps for each in served.stream.observations] == [0, 4, 6, 4]


def test_after_an_unsafe_plan_a_request_has_the_number_that_a_stream_gives_it() -> None:
    """A plan's noise depends on the number, so the transports would differ otherwise."""

    class Careful(Planner):
        def plan(self, observation: Observation) -> ActionChunk:
            chunk = super().plan(observation)
            if len(self.asked) == 2:
                raise UnsafeChunk("a plan breaks a limit")
            return chunk

    planner = Careful()
    source = UnarySource(planner, LIBERO_POLICY, CONFIG)
    source.begin("pick")
    source.plan(request_at(0, policy=LIBERO_POLICY))
    with pytest.raises(UnsafeChunk):
        source.plan(request_at(4, 4, policy=LIBERO_POLICY))
    assert source.plan(request_at(6, 6, policy=LIBERO_POLICY)).sequence == 2
    assert [each.session_id for each in planner.asked] == [None, "session-1", "session-1"]


def test_an_interrupted_stream_ends_the_episode_and_the_next_one_has_a_new_session(
    served: Gateway, source: StreamSource
) -> None:
    source.begin("pick")
    asked = threading.Event()
    served.answer = lambda stream, seen: asked.set()
    failures: list[WavserveError] = []

    def plan() -> None:
        try:
            source.plan(request_at(0))
        except WavserveError as error:
            failures.append(error)

    waiting = threading.Thread(target=plan)
    waiting.start()
    assert asked.wait(30)
    served.stop()
    waiting.join(30)
    assert [error.retryable for error in failures] == [True]
    served.answer = Gateway.answer
    served.restart()
    source.begin("pick")
    assert source.plan(request_at(0)).sequence == 0
    assert served.stream.hello.resume_session_id is None


def test_a_service_that_is_away_is_not_ready(served: Gateway, source: StreamSource) -> None:
    served.stop()
    with pytest.raises(NotReady):
        source.begin("pick")
    served.restart()
    source.begin("pick")
    assert source.plan(request_at(0)).sequence == 0


def test_a_service_that_has_another_policy_by_now_is_refused(served: Gateway, source: StreamSource) -> None:
    served.policy = replace(POLICY, digest="e" * 64)
    with pytest.raises(ContractMismatch, match="policy_digest"):
        source.begin("pick")


# ------------------------------------------------------------------------------------------------------- two gateways


@contextmanager
def two_gateways() -> Iterator[tuple[Gateway, Gateway]]:
    """The gateway that robot `sim` prefers, and the other one. They share no session: each resumes any."""
    with gateway() as one, gateway() as other:
        addresses = [one.address, other.address]
        yield (one, other) if ranked("sim", addresses)[0] == one.address else (other, one)


def source_over(first: Gateway, second: Gateway) -> StreamSource:
    return StreamSource(f"{first.address},{second.address}", "sim", POLICY, CONFIG)


def await_stream(served: Gateway) -> None:
    """Until a stream is there, for at most 30 s."""
    until = time.monotonic() + 30
    while not served.streams:
        assert time.monotonic() < until, "no stream"
        time.sleep(0.01)


def cut(stream: Stream, seen: ControlObservation) -> None:
    """The gateway dies while it plans."""
    stream.end()


def drained(stream: Stream, seen: ControlObservation) -> None:
    """The gateway drains, and has not begun the plan."""
    stream.send(GoAway(1000, "the server stops"), ObservationDropped(seen.sequence, DropReason.DRAINING, epoch=1))
    stream.end()


def without_models(stream: Stream, seen: ControlObservation) -> None:
    stream.send(StreamError(name="not-ready", message="repaired", sequence=seen.sequence, epoch=1))


def test_an_episode_goes_on_at_another_gateway_between_two_plans() -> None:
    with two_gateways() as (first, second), closing(source_over(first, second)) as source:
        source.begin("pick")
        source.plan(request_at(0))
        second.epoch, second.committed = 1, 1
        first.stream.end()
        await_stream(second)
        chunks = [source.plan(request_at(8, 8)), source.plan(request_at(16, 8))]
    assert [(chunk.epoch, chunk.sequence) for chunk in chunks] == [(2, 1), (2, 2)], "numbers as in an undisturbed run"
    assert second.stream.hello.resume_session_id == "session-1"
    seen = second.stream.observations
    assert [(each.control_step, each.executed_steps, each.seed) for each in seen] == [(8, 8, 48), (16, 8, 56)]


@pytest.mark.parametrize("end", [cut, drained, without_models])
def test_an_episode_whose_plan_is_being_made_begins_anew(end: Any) -> None:
    with two_gateways() as (first, second), closing(source_over(first, second)) as source:
        source.begin("pick")
        source.plan(request_at(0))
        first.answer = end
        second.epoch, second.committed = 1, 1
        with pytest.raises(NotReady, match="another gateway, and a plan was being made"):
            source.plan(request_at(8, 8))
        first.answer = Gateway.answer
        source.begin("pick")
        assert source.plan(request_at(0)).sequence == 0


def test_a_session_that_another_gateway_does_not_have_ends_the_episode() -> None:
    with two_gateways() as (first, second), closing(source_over(first, second)) as source:
        source.begin("pick")
        source.plan(request_at(0))
        second.resumes = False
        first.stream.end()
        await_stream(second)
        with pytest.raises(NotReady, match="interrupted"):
            source.plan(request_at(8, 8))


def test_an_episode_ends_when_no_gateway_is_left() -> None:
    with two_gateways() as (first, second), closing(source_over(first, second)) as source:
        source.begin("pick")
        source.plan(request_at(0))
        second.stop()
        first.answer = cut
        with pytest.raises(NotReady) as caught:
            source.plan(request_at(8, 8))
    assert first.address in str(caught.value)
    assert second.address in str(caught.value)
