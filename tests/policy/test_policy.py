"""The door on a fake backend: sessions, retries, deadlines, cancellation. A refused plan changes nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from tests.planning.rig import ManualClock, Rig, RigOptions, example_request, example_spec, rigged
from wavserve.core.errors import (
    BackendError,
    DeadlineExceeded,
    InvalidRequest,
    NotReady,
    Overloaded,
    SequenceConflict,
    UnknownPolicy,
    UnknownSession,
)
from wavserve.core.messages import ActionChunk
from wavserve.core.types import DeadlineResult, PlanRequest
from wavserve.policy.imagined import encode_png
from wavserve.policy.sessions import Session
from wavserve.scheduling.admission import Demand
from wavserve.scheduling.ledger import Work
from wavserve.scheduling.permits import PERMIT_S

SPEC = example_spec()


def on_rig(scenario: Callable[[Rig], Awaitable[None]], options: RigOptions | None = None) -> None:
    async def main() -> None:
        async with rigged(SPEC, options) as rig, asyncio.timeout(20):
            await scenario(rig)

    asyncio.run(main())


def follow(result: ActionChunk, seed: int = 1, **changes: object):
    return example_request(SPEC, seed, session_id=result.session_id, **changes)


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_a_plan_has_actions_and_a_whole_receipt() -> None:
    async def scenario(rig: Rig) -> None:
        request = example_request(SPEC, control_step=40)
        result = await rig.policy.plan(request)
        assert result.actions.shape == (SPEC.chunk, 2)
        assert np.isfinite(result.actions).all()
        assert (result.first_control_step, result.sequence) == (40, 0)
        receipt = result.receipt
        assert (receipt.policy, receipt.policy_digest, receipt.untrained, receipt.seed) == ("example", "fake", True, 1)
        assert receipt.deadline is DeadlineResult.NONE
        assert receipt.iterations_done == len(receipt.iterations) == 2
        assert set(receipt.digests) == {"images.top", "images.wrist", "state", "instruction", "memory"}
        assert {"encode", "imagine", "score", "refit", "decode", "queued", "total"} <= set(receipt.stage_s)

    on_rig(scenario)


def test_the_same_seed_gives_the_same_actions_and_the_sequence_number_fresh_noise() -> None:
    async def scenario(rig: Rig) -> None:
        first = await rig.policy.plan(example_request(SPEC))
        second = await rig.policy.plan(example_request(SPEC))
        later = await rig.policy.plan(example_request(SPEC, sequence=1))
        assert first.session_id != second.session_id
        np.testing.assert_array_equal(first.actions, second.actions)
        assert not np.array_equal(first.actions, later.actions)

    on_rig(scenario)


def test_without_a_seed_one_is_drawn_and_reported() -> None:
    async def scenario(rig: Rig) -> None:
        request = example_request(SPEC, seed=1)
        drawn = await rig.policy.plan(replace(request, seed=None))
        again = await rig.policy.plan(replace(request, seed=drawn.receipt.seed))
        np.testing.assert_array_equal(drawn.actions, again.actions)
        other = await rig.policy.plan(replace(request, seed=None))
        assert other.receipt.seed != drawn.receipt.seed

    on_rig(scenario)


def test_seed_zero_is_a_seed() -> None:
    async def scenario(rig: Rig) -> None:
        request = replace(example_request(SPEC), seed=0)
        one, other = await rig.policy.plan(request), await rig.policy.plan(request)
        assert one.receipt.seed == 0
        np.testing.assert_array_equal(one.actions, other.actions)

    on_rig(scenario)


def test_a_session_remembers_its_frames() -> None:
    async def scenario(rig: Rig) -> None:
        first = await rig.policy.plan(example_request(SPEC))
        later = await rig.policy.plan(follow(first, 2, sequence=1, executed_steps=2))
        fresh = await rig.policy.plan(example_request(SPEC, 2, sequence=1))
        assert later.receipt.digests["memory"] != fresh.receipt.digests["memory"]
        assert not np.array_equal(later.actions, fresh.actions)

    on_rig(scenario)


def test_reset_forgets_the_frames_and_not_the_sequence() -> None:
    async def scenario(rig: Rig) -> None:
        first = await rig.policy.plan(example_request(SPEC))
        await rig.policy.reset(first.session_id)
        with pytest.raises(SequenceConflict):
            await rig.policy.plan(follow(first))
        later = await rig.policy.plan(follow(first, 2, sequence=1))
        fresh = await rig.policy.plan(example_request(SPEC, 2, sequence=1))
        np.testing.assert_array_equal(later.actions, fresh.actions)

    on_rig(scenario)


def test_a_retry_gets_the_first_answer() -> None:
    async def scenario(rig: Rig) -> None:
        first = await rig.policy.plan(example_request(SPEC))
        request = replace(follow(first, 2, sequence=5), seed=None)
        answer = await rig.policy.plan(request)
        calls = len(rig.backend.calls)
        assert await rig.policy.plan(request) is answer
        assert len(rig.backend.calls) == calls

    on_rig(scenario)


def test_a_retry_while_the_plan_is_under_way_joins_it() -> None:
    async def scenario(rig: Rig) -> None:
        first = await rig.policy.plan(example_request(SPEC))
        request = follow(first, 2, sequence=1)
        impatient = asyncio.ensure_future(rig.policy.plan(request))
        await turns(3)
        retry = asyncio.ensure_future(rig.policy.plan(request))
        await turns(3)
        impatient.cancel()
        answer = await retry
        assert answer.sequence == 1
        assert await rig.policy.plan(request) is answer

    on_rig(scenario)


@pytest.mark.parametrize(
    ("sequence", "seed", "expected"), [(4, 2, "more than 5"), (5, 3, "a new number, 5 was answered")]
)
def test_stale_and_reused_numbers_are_refused(sequence: int, seed: int, expected: str) -> None:
    async def scenario(rig: Rig) -> None:
        first = await rig.policy.plan(example_request(SPEC))
        await rig.policy.plan(follow(first, 2, sequence=5))
        before = await rig.sessions.load(first.session_id)
        with pytest.raises(SequenceConflict, match=expected) as refused:
            await rig.policy.plan(follow(first, seed, sequence=sequence))
        assert refused.value.field == "sequence"
        assert await rig.sessions.load(first.session_id) is before

    on_rig(scenario)


def test_one_plan_at_a_time_in_a_session() -> None:
    async def scenario(rig: Rig) -> None:
        first = await rig.policy.plan(example_request(SPEC))
        running = asyncio.ensure_future(rig.policy.plan(follow(first, 2, sequence=1)))
        await turns(3)
        with pytest.raises(SequenceConflict, match="sequence 1 is under way"):
            await rig.policy.plan(follow(first, 3, sequence=2))
        assert (await running).sequence == 1

    on_rig(scenario)


def test_a_reset_while_planning_refuses_the_plan() -> None:
    async def scenario(rig: Rig) -> None:
        first = await rig.policy.plan(example_request(SPEC))
        running = asyncio.ensure_future(rig.policy.plan(follow(first, 2, sequence=1)))
        await turns(5)
        await rig.policy.reset(first.session_id)
        with pytest.raises(SequenceConflict, match="reset"):
            await running
        session = await rig.sessions.load(first.session_id)
        assert session is not None
        assert session.memory is None

    on_rig(scenario)


@pytest.mark.parametrize("session_id", ["nobody", ""])
def test_unknown_sessions_are_refused(session_id: str) -> None:
    async def scenario(rig: Rig) -> None:
        if session_id:
            with pytest.raises(UnknownSession, match=repr(session_id)):
                await rig.policy.plan(example_request(SPEC, session_id=session_id))
        with pytest.raises(UnknownSession):
            await rig.policy.reset(session_id)
        assert not rig.backend.calls

    on_rig(scenario)


def test_another_policy_is_refused_by_name() -> None:
    async def scenario(rig: Rig) -> None:
        with pytest.raises(UnknownPolicy, match="expected example, got 'other'"):
            await rig.policy.plan(example_request(SPEC, policy="other"))
        assert (await rig.policy.plan(example_request(SPEC, policy="example"))).receipt.policy == "example"

    on_rig(scenario)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"iterations": 3}, "planner.iterations"),
        ({"num_iterations": 11}, "planner.num_iterations"),
        ({"num_iterations": True}, "planner.num_iterations"),
        ({"num_video_samples": 65}, "planner.num_video_samples"),
        ({"num_value_samples": 0}, "planner.num_value_samples"),
        ({"num_flow_steps": 2.0}, "planner.num_flow_steps"),
        ({"smoothing": float("nan")}, "planner.smoothing"),
        ({"decay": 1.1}, "planner.decay"),
        ({"mode": "best"}, "planner.mode"),
        ({"video_elite_fraction": 0.1}, "planner.video_elite_fraction"),
        ({"num_video_samples": 2, "num_value_samples": 1}, "planner.video_elite_fraction"),
        ({"num_video_samples": 1}, "planner.num_video_samples"),
        ({"smoothing": 10**400}, "planner.smoothing"),
        ({"num_video_samples": 3, "num_value_samples": 1}, "planner.value_elite_fraction"),
    ],
)
def test_planner_options_out_of_bounds_are_refused(options: dict[str, object], field: str) -> None:
    async def scenario(rig: Rig) -> None:
        with pytest.raises(InvalidRequest) as refused:
            await rig.policy.plan(example_request(SPEC, options=options))
        assert refused.value.field == field
        assert refused.value.expected
        assert refused.value.actual
        assert not rig.backend.calls

    on_rig(scenario)


def test_options_reach_the_plan() -> None:
    async def scenario(rig: Rig) -> None:
        options = {"num_iterations": 1, "num_video_samples": 4, "mode": "published", "per_view_noise": True}
        receipt = (await rig.policy.plan(example_request(SPEC, options=options))).receipt
        assert receipt.iterations[0].snr.shape == (4, 3)
        assert (receipt.config.mode, receipt.iterations_done) == ("published", 1)

    on_rig(scenario)


def test_imagined_frames_come_when_asked_for() -> None:
    async def scenario(rig: Rig) -> None:
        plain = await rig.policy.plan(example_request(SPEC))
        shown = await rig.policy.plan(example_request(SPEC, imagine_chunks=2))
        assert plain.imagined == {}
        assert {name: len(frames) for name, frames in shown.imagined.items()} == {"top": 18, "wrist": 18}
        for frame in shown.imagined["top"]:
            picture = Image.open(BytesIO(frame.data))
            assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", (8, 8))
            assert (frame.height, frame.width) == (8, 8)
        np.testing.assert_array_equal(plain.actions, shown.actions)

    on_rig(scenario)


def test_a_frame_survives_png() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (40, 24, 3), np.uint8)
    picture = encode_png("top", frame)
    assert (picture.height, picture.width) == (40, 24)
    np.testing.assert_array_equal(np.array(Image.open(BytesIO(picture.data))), frame)


def test_a_deadline_that_passed_is_an_error_and_changes_nothing() -> None:
    async def scenario(rig: Rig) -> None:
        first = await rig.policy.plan(example_request(SPEC))
        before = await rig.sessions.load(first.session_id)
        with pytest.raises(DeadlineExceeded):
            await rig.policy.plan(follow(first, 2, sequence=1), deadline=time.monotonic() - 0.001)
        await turns(200)
        assert rig.policy.plans_in_flight == 0
        assert await rig.sessions.load(first.session_id) is before
        assert rig.backend.book.used == 0

    on_rig(scenario)


def test_a_retry_is_not_bound_by_the_deadline_of_the_plan_it_joined() -> None:
    async def scenario(rig: Rig) -> None:
        first = await rig.policy.plan(example_request(SPEC))
        request, stuck = follow(first, 2, sequence=1), asyncio.Event()

        async def the_models_give_up(verb: str) -> None:
            if verb == "imagine" and not stuck.is_set():
                await stuck.wait()
                raise DeadlineExceeded("no answer before the deadline")

        rig.backend.before = the_models_give_up
        lead = asyncio.ensure_future(rig.policy.plan(request, time.monotonic() + 60))
        await turns()
        retries = [asyncio.ensure_future(rig.policy.plan(request)) for _ in range(2)]
        await turns()
        stuck.set()
        with pytest.raises(DeadlineExceeded):
            await lead
        one, other = await asyncio.gather(*retries)
        assert one is other
        assert one.receipt.deadline is DeadlineResult.NONE
        assert rig.policy.plans_in_flight == 0

    on_rig(scenario)


def test_an_answer_that_waited_for_the_event_loop_is_not_given_after_its_deadline() -> None:
    clock = ManualClock()

    async def hold_up_the_loop(request: PlanRequest, before: Session, result: ActionChunk) -> None:
        clock.now += 10.0  # runs when the plan is made, and before its caller wakes

    async def scenario(rig: Rig) -> None:
        with pytest.raises(DeadlineExceeded) as missed:
            await rig.policy.plan(example_request(SPEC), clock.now + 5.0)
        assert missed.value.missed is not None
        assert missed.value.missed.slack_ms == -5000.0

    on_rig(scenario, RigOptions(clock=clock, keep=hold_up_the_loop))


def test_a_missed_plan_tells_what_was_spent_on_it() -> None:
    clock = ManualClock()

    async def scenario(rig: Rig) -> None:
        async def stuck_in_the_second_iteration(verb: str) -> None:
            if verb == "score" and sum(called == "score" for called, _, _ in rig.backend.calls) >= 3:
                clock.now += 2.0
                await asyncio.Event().wait()

        rig.backend.before = stuck_in_the_second_iteration
        with pytest.raises(DeadlineExceeded) as missed:
            await rig.policy.plan(example_request(SPEC), deadline=clock.now + 1.0)
        told = missed.value.missed
        assert told is not None
        assert (told.iterations_done, told.num_video_samples, told.num_value_samples) == (1, 7, 3)
        assert told.slack_ms <= 0

    on_rig(scenario, RigOptions(clock=clock))


def test_what_would_be_late_is_refused_before_any_work_and_already_at_the_door() -> None:
    clock = ManualClock()

    async def scenario(rig: Rig) -> None:
        rig.planner.admission.register(Demand("other", Work(3.0), Work(3.0)), clock.now + 4.0)
        calls = len(rig.backend.calls)
        for refuse in (
            lambda: rig.policy.plan(example_request(SPEC), clock.now + 2.0),
            lambda: admit(rig, clock.now + 2.0),
        ):
            with pytest.raises(Overloaded) as refused:
                await refuse()
            assert refused.value.predicted_s is not None
            assert refused.value.retry_after_s > 0
        assert len(rig.backend.calls) == calls
        assert rig.policy.plans_in_flight == 0
        await admit(rig, None)
        await admit(rig, clock.now + 60.0)
        clock.now += 30.0  # nobody who was refused is waited for any more
        assert (await rig.policy.plan(example_request(SPEC), clock.now + 60.0)).receipt.deadline is DeadlineResult.MET

    on_slow_rig(clock, scenario)


def on_slow_rig(clock: ManualClock, scenario: Callable[[Rig], Awaitable[None]]) -> None:
    """A rig whose every decode takes a second of the clock."""

    async def takes_a_second(verb: str) -> None:
        clock.now += 1.0 if verb == "decode" else 0.0

    async def main() -> None:
        options = RigOptions(clock=clock, before=takes_a_second, slice_s=0.1)
        async with rigged(SPEC, options) as rig, asyncio.timeout(30):
            await rig.policy.warm_up()
            await scenario(rig)

    asyncio.run(main())


async def admit(rig: Rig, deadline: float | None) -> None:
    with rig.policy.reserve(deadline):
        pass


def test_time_is_kept_for_a_request_while_it_is_read_and_for_no_longer() -> None:
    """Else all that come at once are let in, and most are refused when their pictures have been decoded."""
    clock = ManualClock()

    async def scenario(rig: Rig) -> None:
        admission = rig.planner.admission
        with rig.policy.reserve(clock.now + 1.5) as permit:
            assert admission.remaining_s == pytest.approx(1.0, rel=0.6)
            with pytest.raises(Overloaded):
                await admit(rig, clock.now + 1.5)
            result = await rig.policy.plan(example_request(SPEC), clock.now + 1.9, permit)
            assert result.receipt.deadline is DeadlineResult.MET_DEGRADED
            assert admission.remaining_s == 0.0
        with rig.policy.reserve(clock.now + 9.0) as permit:
            permit.release()
            permit.release()
            assert admission.remaining_s == 0.0
        with pytest.raises(ZeroDivisionError), rig.policy.reserve(clock.now + 9.0):
            raise ZeroDivisionError
        assert admission.remaining_s == 0.0

    on_slow_rig(clock, scenario)


def test_a_retry_that_joins_a_plan_gives_its_own_place_up() -> None:
    async def scenario(rig: Rig) -> None:
        admission = rig.planner.admission
        first = await rig.policy.plan(example_request(SPEC))
        request = follow(first, 2, sequence=1)
        running = asyncio.ensure_future(rig.policy.plan(request))
        await turns(1)
        with rig.policy.reserve(time.monotonic() + 60) as permit:
            assert any(ticket.bounded for ticket in admission._ledger._tickets.values())
            retry = asyncio.ensure_future(rig.policy.plan(request, None, permit))
            await turns(1)
            assert not running.done()
            assert not any(ticket.bounded for ticket in admission._ledger._tickets.values())
            assert await retry is await running

    on_rig(scenario)


def test_who_sends_slowly_does_not_keep_time_from_others() -> None:
    clock = ManualClock()

    async def scenario(rig: Rig) -> None:
        with rig.policy.reserve(clock.now + 9.0):
            assert rig.planner.admission.remaining_s > 0
            await asyncio.sleep(1.5 * PERMIT_S)
            assert rig.planner.admission.remaining_s == 0.0

    on_slow_rig(clock, scenario)


def test_the_door_counts_permits() -> None:
    async def scenario(rig: Rig) -> None:
        running = asyncio.ensure_future(rig.policy.plan(example_request(SPEC)))
        await turns(2)
        with pytest.raises(Overloaded, match="1 plans are under way"):
            await admit(rig, None)
        await running
        with rig.policy.reserve(None) as permit:  # whose request is being read
            with pytest.raises(Overloaded, match="1 plans are under way"):
                await admit(rig, None)
            await rig.policy.plan(example_request(SPEC), None, permit)
            await admit(rig, None)
        await admit(rig, None)
        rig.policy.warm = False
        with pytest.raises(NotReady):
            await admit(rig, None)

    on_rig(scenario, RigOptions(max_plans=1))


def test_an_answered_plan_leaves_the_schedule_empty_and_so_does_every_other() -> None:
    async def scenario(rig: Rig) -> None:
        await rig.policy.plan(example_request(SPEC), time.monotonic() + 60)
        running = asyncio.ensure_future(rig.policy.plan(example_request(SPEC), time.monotonic() + 60))
        await turns(5)
        assert rig.planner.admission.remaining_s > 0
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await turns(50)
        assert rig.planner.admission.remaining_s == 0

    on_rig(scenario)


def test_a_retry_may_follow_a_cancelled_plan_at_once() -> None:
    """Whatever of the cancelled plan is still unwinding is nobody's answer."""

    async def scenario(rig: Rig) -> None:
        first = await rig.policy.plan(example_request(SPEC))
        request = follow(first, 2, sequence=1)
        for pause in range(4):
            running = asyncio.ensure_future(rig.policy.plan(request))
            await turns(5)
            running.cancel()
            await turns(pause)
            if pause == 3:
                assert (await rig.policy.plan(request)).sequence == 1
                return
            retry = asyncio.ensure_future(rig.policy.plan(request))
            await turns(3)
            assert not retry.done()
            retry.cancel()

    on_rig(scenario)


def test_plans_that_outlast_the_drain_are_answered() -> None:
    async def scenario(rig: Rig) -> None:
        async def stuck(verb: str) -> None:
            await asyncio.Event().wait()

        rig.backend.before = stuck
        running = asyncio.ensure_future(rig.policy.plan(example_request(SPEC)))
        await turns(3)
        await rig.policy.drain(timeout_s=0.01)
        with pytest.raises(NotReady, match="stopped"):
            await running
        rig.backend.before = released

    async def released(verb: str) -> None:
        pass

    async def main() -> None:
        async with asyncio.timeout(20), rigged(SPEC) as rig:
            await scenario(rig)
            for call in list(rig.batcher._calls):  # the stuck call is the test's own
                call.cancel()

    asyncio.run(main())


def test_a_slow_recorder_delays_nobody() -> None:
    async def main() -> None:
        kept = asyncio.Event()

        async def keep(request: PlanRequest, before: Session, result: ActionChunk) -> None:
            await kept.wait()

        async with rigged(SPEC, RigOptions(keep=keep)) as rig, asyncio.timeout(20):
            await rig.policy.plan(example_request(SPEC), deadline=time.monotonic() + 10)
            draining = asyncio.ensure_future(rig.policy.drain())
            await turns(5)
            assert not draining.done()
            kept.set()
            await draining

    asyncio.run(main())


def test_draining_waits_for_the_records_of_plans_that_end_meanwhile() -> None:
    async def main() -> None:
        go, kept = asyncio.Event(), asyncio.Event()

        async def keep(request: PlanRequest, before: Session, result: ActionChunk) -> None:
            await kept.wait()

        async def hold(verb: str) -> None:
            await go.wait()

        async with rigged(SPEC, RigOptions(keep=keep, before=hold)) as rig, asyncio.timeout(20):
            planning = asyncio.ensure_future(rig.policy.plan(example_request(SPEC)))
            await turns(5)
            draining = asyncio.ensure_future(rig.policy.drain())
            await turns(5)
            go.set()
            await planning
            await turns(5)
            assert not draining.done()
            kept.set()
            await draining

    asyncio.run(main())


def test_a_record_that_fails_is_logged_and_costs_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    async def keep(request: PlanRequest, before: Session, result: ActionChunk) -> None:
        raise RuntimeError("the disk is on fire")

    async def scenario(rig: Rig) -> None:
        assert (await rig.policy.plan(example_request(SPEC))).actions.shape == (SPEC.chunk, 2)
        await rig.policy.drain()

    on_rig(scenario, RigOptions(keep=keep))
    assert "could not be recorded" in caplog.text
    assert "the disk is on fire" in caplog.text


def test_each_imagined_chunk_has_noise_of_its_own() -> None:
    async def scenario(rig: Rig) -> None:
        shown = await rig.policy.plan(example_request(SPEC, imagine_chunks=2))
        first, second = shown.imagined["top"][:9], shown.imagined["top"][9:]
        assert len(first) == len(second)
        assert first != second

    on_rig(scenario)


def test_a_generous_deadline_is_met() -> None:
    async def scenario(rig: Rig) -> None:
        receipt = (await rig.policy.plan(example_request(SPEC), deadline=time.monotonic() + 1000)).receipt
        assert receipt.deadline is DeadlineResult.MET
        assert receipt.slack_s is not None
        assert 0 < receipt.slack_s < 1000

    on_rig(scenario)


def test_cancelling_the_caller_cancels_the_plan() -> None:
    async def scenario(rig: Rig) -> None:
        first = await rig.policy.plan(example_request(SPEC))
        before = await rig.sessions.load(first.session_id)
        running = asyncio.ensure_future(rig.policy.plan(follow(first, 2, sequence=1)))
        await turns(5)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await turns(200)
        assert rig.policy.plans_in_flight == 0
        assert rig.backend.book.used == 0
        assert await rig.sessions.load(first.session_id) is before

    on_rig(scenario)


def test_a_failing_backend_changes_nothing_and_may_be_retried() -> None:
    async def scenario(rig: Rig) -> None:
        first = await rig.policy.plan(example_request(SPEC))
        healthy = rig.backend.before

        async def broken(verb: str) -> None:
            if verb == "decode":
                raise BackendError("the model is gone")

        rig.backend.before = broken
        request = follow(first, 2, sequence=1)
        with pytest.raises(BackendError, match="the model is gone"):
            await rig.policy.plan(request)
        rig.backend.before = healthy
        assert (await rig.policy.plan(request)).sequence == 1

    on_rig(scenario)


def test_more_plans_than_permits_are_refused_at_once() -> None:
    async def scenario(rig: Rig) -> None:
        running = [asyncio.ensure_future(rig.policy.plan(example_request(SPEC, seed))) for seed in range(2)]
        await turns(2)
        with pytest.raises(Overloaded, match="2 plans are under way") as refused:
            await rig.policy.plan(example_request(SPEC, 9))
        assert refused.value.retry_after_s > 0
        await asyncio.gather(*running)

    on_rig(scenario, RigOptions(max_plans=2))


def test_a_full_session_store_refuses_before_any_work() -> None:
    async def scenario(rig: Rig) -> None:
        for seed in range(4):
            first = await rig.policy.plan(example_request(SPEC, seed))
            await rig.policy.plan(follow(first, seed, sequence=1))
        calls = len(rig.backend.calls)
        with pytest.raises(Overloaded, match="all 4 sessions"):
            await rig.policy.plan(example_request(SPEC, 9))
        assert len(rig.backend.calls) == calls

    on_rig(scenario)


def test_nothing_is_planned_before_the_warm_up_or_while_draining() -> None:
    async def scenario(rig: Rig) -> None:
        with pytest.raises(NotReady):
            await rig.policy.plan(example_request(SPEC))
        await rig.policy.warm_up()
        assert rig.policy.ready
        assert {verb for verb, _, _ in rig.backend.calls} >= {
            "encode_images",
            "encode_text",
            "imagine",
            "score",
            "decode",
        }
        assert len(rig.sessions) == 0
        running = asyncio.ensure_future(rig.policy.plan(example_request(SPEC)))
        await turns(3)
        draining = asyncio.ensure_future(rig.policy.drain())
        await turns(2)
        with pytest.raises(NotReady):
            await rig.policy.plan(example_request(SPEC))
        await draining
        assert (await running).sequence == 0

    on_rig(scenario, RigOptions(ready=False))
