"""What is noted for onlookers: the last failures and the last plans, bounded, and without secrets."""

from __future__ import annotations

import pytest

from tests.clock import ManualClock
from tests.edge.fakes import RecordingPolicy, example_chunk_of, example_limits, example_observation, example_spec
from tests.edge.grpc.control.links import Gate, example_message, serving_policy, serving_rig
from tests.edge.robots import JsonRobot, serving
from tests.planning.rig import example_request
from wavserve.core.control import ObservationDropped, StreamError
from wavserve.core.errors import BackendError, Cancelled, InvalidRequest, Overloaded, UnknownSession
from wavserve.edge.recent_plans import RecentPlans
from wavserve.edge.refusals import Refusals
from wavserve.edge.trail import Trail
from wavserve.system.telemetry import Metrics


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def refusals(clock: ManualClock) -> Refusals:
    return Refusals(clock, max_kept=3)


def test_a_failure_that_repeats_is_counted_and_becomes_the_newest(refusals: Refusals, clock: ManualClock) -> None:
    refusals.note(Overloaded("in 1 s", reason="device_time"), "arm")
    refusals.note(BackendError("down"), "arm")
    clock.now += 2
    refusals.note(Overloaded("in 2 s", reason="device_time"), "arm")
    newest, other = refusals.latest()
    assert (newest.name, newest.reason, newest.times, newest.at) == ("overloaded", "in 2 s", 2, clock.now)
    assert (other.name, other.times) == ("backend-error", 1)


def test_senders_and_reasons_are_kept_apart_and_only_the_last_few_are_kept(refusals: Refusals) -> None:
    for sender, reason in (("a", "share"), ("a", "places"), ("b", "share"), ("c", "share")):
        refusals.note(Overloaded(reason, reason=reason), sender)  # type: ignore[arg-type]  # one of the literals
    assert [(each.sender, each.reason) for each in refusals.latest()] == [
        ("c", "share"),
        ("b", "share"),
        ("a", "places"),
    ]


def test_no_value_that_a_client_sent_is_kept(refusals: Refusals) -> None:
    refusals.note(UnknownSession("session_id", "a session of this service", "'s3cret'"), "arm")
    refusals.note(InvalidRequest("instruction", "some text", "'s3cret'"), "arm")
    refusals.note(ValueError("s3cret"), "arm")
    assert "s3cret" not in repr(refusals.latest())
    assert [each.name for each in refusals.latest()] == ["internal", "invalid-request", "unknown-session"]


def test_texts_are_short_and_printable(refusals: Refusals) -> None:
    refusals.note(BackendError("\x1b[2J" + "x" * 5000), "\x07" + "y" * 5000)
    [kept] = refusals.latest()
    assert kept.reason.isprintable()
    assert kept.sender.isprintable()
    assert len(kept.reason) + len(kept.sender) <= 400


def test_a_client_that_leaves_is_no_failure(refusals: Refusals) -> None:
    refusals.note(Cancelled("the client disconnected"), "arm")
    assert refusals.latest() == []


def test_a_plan_replaces_the_sessions_last_one_and_the_oldest_session_goes(clock: ManualClock) -> None:
    plans, spec = RecentPlans(clock, max_kept=2), example_spec()
    for session_id in ("a", "b", "a", "c"):
        request = example_request(spec, session_id=session_id, imagine_chunks=1)
        plans.note(example_chunk_of(spec, request), request)
        clock.now += 10
    assert [plan.session_id for plan in plans.within(100)] == ["c", "a"]
    assert [plan.session_id for plan in plans.within(15)] == ["c"]
    assert plans.of("b") is None
    assert plans.of("a").chunk.imagined == {}  # type: ignore[union-attr]
    assert plans.of(None) is None


def test_a_request_that_fails_over_http_is_noted_under_its_address() -> None:
    refusals, policy = Refusals(), RecordingPolicy(error=Overloaded("later", reason="share"))
    with serving(policy, example_limits(), Metrics(), trail=Trail(on_failed=refusals.note)) as address:
        robot = JsonRobot(address)
        robot.plan(example_observation())
        robot.plan(example_observation(state=(1.0,)))
        robot.close()
    assert [(each.sender, each.name) for each in refusals.latest()] == [
        ("127.0.0.1", "invalid-request"),
        ("127.0.0.1", "overloaded"),
    ]


async def test_a_robot_that_is_refused_is_noted_under_its_id() -> None:
    refusals = Refusals()
    async with serving_rig(trail=Trail(on_failed=refusals.note)) as (server, _):
        link = server.link("arm")
        await link.open()
        await link.send(link.observation(0, state=(1.0,)))
        await link.receive(StreamError)
        stranger = server.link("stranger", embodiment="another")
        await stranger.send(stranger.hello)
        await stranger.receive(StreamError)
    assert [(each.sender, each.name, each.times) for each in refusals.latest()] == [
        ("stranger", "contract-mismatch", 1),
        ("arm", "invalid-request", 1),
    ]


async def test_an_observation_that_is_dropped_for_want_of_time_is_noted_once() -> None:
    refusals, policy = Refusals(), RecordingPolicy(reserve_error=Overloaded("later", reason="device_time"))
    async with serving_policy(policy, Gate(), trail=Trail(on_failed=refusals.note)) as server:
        link = server.link("arm")
        await link.open()
        await link.send(example_message(0))
        await link.receive(ObservationDropped)
    assert [(each.sender, each.reason, each.times) for each in refusals.latest()] == [("arm", "later", 1)]
