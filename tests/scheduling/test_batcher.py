"""The batcher: who goes first, who goes together, and that every group is answered exactly once."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.planning.rig import ManualClock
from wavserve.core.errors import BackendError, NotReady, StaleHandle
from wavserve.core.types import Tensors
from wavserve.core.verbs import VERBS, Status
from wavserve.scheduling.batcher import Batcher, BatcherConfig
from wavserve.scheduling.costs import Costs
from wavserve.scheduling.groups import SampleGroup
from wavserve.scheduling.ledger import Ticket, Work


class Echo:
    """A backend that gives back `x`, one call at a time, each let through by `step` when `gated`."""

    def __init__(self, gated: bool = False) -> None:
        self.calls: list[tuple[str, list[int]]] = []
        self.deadlines: list[float] = []
        self.cancelled: list[int] = []
        self.fail: dict[int, Exception] = {}
        self._gate = asyncio.Semaphore(0 if gated else 10**9)

    def step(self, calls: int = 1) -> None:
        for _ in range(calls):
            self._gate.release()

    async def run(self, verb: str, inputs: Tensors, deadline: float = 0.0) -> Tensors:
        x = inputs["x"] if "x" in inputs else inputs["handles"][:, 0, 1]
        self.calls.append((verb, x.tolist()))
        self.deadlines.append(deadline)
        try:
            await self._gate.acquire()
        except asyncio.CancelledError:
            self.cancelled += x.tolist()
            raise
        if failure := self.fail.get(int(x[0])):
            raise failure
        status = np.zeros(len(x), np.int32)
        outputs = {"x": x, "status": status}
        if verb == "imagine":
            outputs["handles"] = np.stack([np.zeros_like(x), x], axis=-1)[:, None]
        return outputs

    async def close(self) -> None:
        pass


def group(x: int, verb: str = "denoise", ticket: Ticket | None = None, **params: int) -> SampleGroup:
    return SampleGroup(verb, {"x": np.array(x)}, params, ticket or Ticket())


def due(moment: float) -> Ticket:
    return Ticket(deadline=moment, due=moment)


def made(backend: Any, rows: int, depth: int, workers: int = 1, one_call_per_model: bool = False) -> Batcher:
    return Batcher(
        backend,
        BatcherConfig(rows, workers, depth, 60.0, arena_retry_s=0.001, one_call_per_model=one_call_per_model),
        Costs(),
    )


def with_batcher(backend: Echo, scenario: Callable[[Batcher], object], *, rows: int = 4, depth: int = 1) -> None:
    async def main() -> None:
        batcher = made(backend, rows, depth)
        batcher.start()
        try:
            await scenario(batcher)  # type: ignore[misc]
        finally:
            await batcher.close()

    asyncio.run(main())


async def settle() -> None:
    for _ in range(30):
        await asyncio.sleep(0)


def test_a_lone_group_leaves_at_once() -> None:
    backend = Echo()

    async def scenario(batcher: Batcher) -> None:
        outputs = await batcher.run(group(7))
        assert outputs["x"] == 7
        assert "status" not in outputs

    with_batcher(backend, scenario)
    assert backend.calls == [("denoise", [7])]


def test_earliest_deadline_first_then_first_come() -> None:
    backend = Echo(gated=True)

    async def scenario(batcher: Batcher) -> None:
        deadlines = [math.inf, 30.0, 10.0, math.inf, 20.0]
        waiting = [asyncio.ensure_future(batcher.run(group(0)))]
        await settle()  # the first is running; the rest queue behind it
        waiting += [asyncio.ensure_future(batcher.run(group(i + 1, ticket=due(d)))) for i, d in enumerate(deadlines)]
        await settle()
        backend.step(9)
        await asyncio.gather(*waiting)

    with_batcher(backend, scenario, rows=1)
    assert [x for _, [x] in backend.calls] == [0, 3, 5, 2, 1, 4]


def test_a_plan_frees_memory_before_it_fills_more_and_an_urgent_one_goes_before_both() -> None:
    backend = Echo(gated=True)

    async def scenario(batcher: Batcher) -> None:
        waiting = [asyncio.ensure_future(batcher.run(group(0)))]
        await settle()
        plan, urgent = due(9.0), due(1.0)
        asked = [(1, "imagine", plan), (2, "value_features", plan), (3, "imagine", urgent)]
        waiting += [asyncio.ensure_future(batcher.run(group(*each))) for each in asked]
        await settle()
        backend.step(9)
        await asyncio.gather(*waiting)

    with_batcher(backend, scenario, rows=1)
    assert backend.calls == [("denoise", [0]), ("imagine", [3]), ("value_features", [2]), ("imagine", [1])]


def test_nothing_is_made_ready_behind_a_more_urgent_plan() -> None:
    """Its next call comes as soon as it is answered, and must find the backend free; its own may be ready, though."""
    backend = Echo(gated=True)

    async def scenario(batcher: Batcher) -> None:
        urgent, other = due(1.0), due(9.0)
        waiting = [asyncio.ensure_future(batcher.run(group(0, ticket=urgent)))]
        await settle()
        waiting += [asyncio.ensure_future(batcher.run(group(i, ticket=other))) for i in (1, 2)]
        await settle()
        assert [x for _, x in backend.calls] == [[0]]
        waiting.append(asyncio.ensure_future(batcher.run(group(3, ticket=urgent))))
        await settle()
        assert [x for _, x in backend.calls] == [[0], [3]]

        async def next_call() -> None:
            await waiting[0]
            await batcher.run(group(4, ticket=urgent))

        waiting.append(asyncio.ensure_future(next_call()))
        backend.step()
        await settle()
        assert [x for _, x in backend.calls] == [[0], [3], [4]]
        backend.step(9)
        await asyncio.gather(*waiting)
        assert [x for _, x in backend.calls] == [[0], [3], [4], [1], [2]]

    with_batcher(backend, scenario, rows=1, depth=2)


def test_a_backend_with_two_workers_runs_two_plans_at_once() -> None:
    backend = Echo(gated=True)

    async def main() -> None:
        batcher = made(backend, rows=1, depth=2, workers=2)
        batcher.start()
        waiting = [asyncio.ensure_future(batcher.run(group(i, ticket=due(float(i))))) for i in range(3)]
        await settle()
        assert [x for _, x in backend.calls] == [[0], [1]]
        backend.step(9)
        await asyncio.gather(*waiting)
        await batcher.close()

    asyncio.run(main())


@pytest.mark.parametrize(("depth", "ready"), [(2, []), (3, [("value_features", [1])])])
def test_of_models_apart_one_that_is_idle_runs_what_a_busy_one_could_not(
    depth: int, ready: list[tuple[str, list[int]]]
) -> None:
    """The second of two workers goes to another model, though its plan is the less urgent; what the busy model has
    next waits here, or ready behind it where there is room for that."""
    backend = Echo(gated=True)

    async def main() -> None:
        batcher = made(backend, rows=1, depth=depth, workers=2, one_call_per_model=True)
        batcher.start()
        asked = [("value_features", 0), ("value_features", 1), ("value_features", 2), ("denoise", 3), ("denoise", 4)]
        waiting = [asyncio.ensure_future(batcher.run(group(i, verb, due(0.0)))) for verb, i in asked]
        await settle()
        assert sorted(backend.calls) == sorted([("value_features", [0]), ("denoise", [3]), *ready])
        backend.step(9)
        await asyncio.gather(*waiting)
        await batcher.close()

    asyncio.run(main())


def test_a_call_is_joined_only_as_far_as_it_stays_short() -> None:
    """Whatever `max_rows` allows: a row takes 10 ms here, and calls shall take 35 ms."""
    backend = Echo(gated=True)

    async def main() -> None:
        costs = Costs(lambda: 0.0)
        for rows in (1, 2, 4, 1, 2, 4) * 20:
            costs.measured(group(0).kind, rows, 0.01 * rows)
        batcher = Batcher(backend, BatcherConfig(16, 1, 1, slice_s=0.035, arena_retry_s=0.001), costs)
        batcher.start()
        waiting = [asyncio.ensure_future(batcher.run(group(i))) for i in range(8)]
        await settle()
        backend.step(9)
        await asyncio.gather(*waiting)
        await batcher.close()

    asyncio.run(main())
    assert [len(x) for _, x in backend.calls] == [3, 3, 2]


def test_plans_are_charged_with_the_time_of_their_calls_and_the_cost_model_learns_it() -> None:
    clock = ManualClock()

    class Slow(Echo):
        async def run(self, verb: str, inputs: Tensors, deadline: float = 0.0) -> Tensors:
            clock.now += 0.5 * len(inputs["x"])
            return await super().run(verb, inputs, deadline)

    async def main() -> None:
        costs = Costs(clock)
        batcher = Batcher(Slow(), BatcherConfig(4, 1, 1, 60.0, 0.001), costs, clock=clock)
        batcher.start()
        tickets = [Ticket(remaining=Work(10.0)), Ticket(remaining=Work(10.0))]
        for _ in range(3):
            await asyncio.gather(*(batcher.run(group(i, ticket=tickets[i])) for i in range(2)))
        await batcher.close()
        assert [ticket.used_s for ticket in tickets] == [1.5, 1.5]
        assert all(ticket.remaining.device_s < 10.0 for ticket in tickets)
        assert costs.seconds(group(0).kind, 2) >= 1.0

    asyncio.run(main())


def test_equal_signatures_share_a_call_up_to_max_rows() -> None:
    backend = Echo(gated=True)

    async def scenario(batcher: Batcher) -> None:
        waiting = [asyncio.ensure_future(batcher.run(group(0)))]
        await settle()
        waiting += [asyncio.ensure_future(batcher.run(group(i))) for i in range(1, 7)]
        waiting.append(asyncio.ensure_future(batcher.run(group(9, flow_steps=2))))
        await settle()
        backend.step(9)
        results = await asyncio.gather(*waiting)
        assert [int(r["x"]) for r in results] == [0, 1, 2, 3, 4, 5, 6, 9]

    with_batcher(backend, scenario)
    assert [x for _, x in backend.calls] == [[0], [1, 2, 3, 4], [5, 6], [9]]


def test_instructions_are_encoded_alone() -> None:
    """A prompt that is too long must not take a neighbour's down with it."""
    backend = Echo(gated=True)

    async def scenario(batcher: Batcher) -> None:
        waiting = [asyncio.ensure_future(batcher.run(group(i, "encode_text"))) for i in range(3)]
        await settle()
        backend.step(3)
        await asyncio.gather(*waiting)

    with_batcher(backend, scenario)
    assert [x for _, x in backend.calls] == [[0], [1], [2]]


def test_one_running_one_ready() -> None:
    backend = Echo(gated=True)

    async def scenario(batcher: Batcher) -> None:
        waiting = [asyncio.ensure_future(batcher.run(group(i))) for i in range(9)]
        await settle()
        assert len(backend.calls) == 2
        backend.step(9)
        await asyncio.gather(*waiting)

    with_batcher(backend, scenario, rows=1, depth=2)


def test_cancelled_work_is_dropped_when_popped() -> None:
    backend = Echo(gated=True)

    async def scenario(batcher: Batcher) -> None:
        waiting = [asyncio.ensure_future(batcher.run(group(i))) for i in range(3)]
        await settle()
        waiting[1].cancel()
        backend.step(9)
        assert await asyncio.gather(*waiting, return_exceptions=True) != []
        assert batcher.queue_depth == 0

    with_batcher(backend, scenario, rows=1)
    assert [x for _, [x] in backend.calls] == [0, 2]


def test_a_call_nobody_waits_for_any_more_is_cancelled() -> None:
    """Only when the last of its callers is gone; the next call does not wait for it."""
    backend = Echo(gated=True)

    async def scenario(batcher: Batcher) -> None:
        blocker = asyncio.ensure_future(batcher.run(group(9, flow_steps=1)))
        await settle()
        waiting = [asyncio.ensure_future(batcher.run(group(i))) for i in range(2)]
        await settle()
        backend.step()
        await blocker
        await settle()
        assert backend.calls[-1] == ("denoise", [0, 1])
        waiting[0].cancel()
        await settle()
        assert backend.cancelled == []
        waiting[1].cancel()
        await settle()
        assert backend.cancelled == [0, 1]
        backend.step()
        assert (await batcher.run(group(3)))["x"] == 3

    with_batcher(backend, scenario)


def test_features_imagined_for_nobody_are_released() -> None:
    """The call goes on: an answer that crossed with a cancellation would leave slots that nobody knows."""
    backend = Echo(gated=True)

    async def scenario(batcher: Batcher) -> None:
        waiting = asyncio.ensure_future(batcher.run(group(5, "imagine")))
        await settle()
        waiting.cancel()
        backend.step(2)
        await asyncio.gather(waiting, return_exceptions=True)
        await settle()
        assert batcher.slots_held == 0

    with_batcher(backend, scenario)
    assert backend.cancelled == []
    assert backend.calls == [("imagine", [5]), ("release", [5])]


def test_features_whose_reader_is_cancelled_as_they_come_are_released() -> None:
    backend = Echo()

    async def scenario(batcher: Batcher) -> None:
        asked = group(5, "imagine")
        waiting = asyncio.ensure_future(batcher.run(asked))
        asked.on_call = lambda queued_s, call_s: bool(waiting.cancel())  # answered, and the caller not yet awake
        await asyncio.gather(waiting, return_exceptions=True)
        assert waiting.cancelled()
        await settle()
        assert batcher.slots_held == 0

    with_batcher(backend, scenario)
    assert backend.calls == [("imagine", [5]), ("release", [5])]


def test_a_call_is_cut_at_the_last_of_its_deadlines_but_not_where_slots_would_be_lost() -> None:
    backend = Echo(gated=True)

    async def scenario(batcher: Batcher) -> None:
        waiting = [asyncio.ensure_future(batcher.run(group(0)))]
        await settle()
        waiting += [asyncio.ensure_future(batcher.run(group(i, ticket=due(i)))) for i in (1, 2)]
        waiting += [asyncio.ensure_future(batcher.run(group(3, "imagine", due(3.0))))]
        await settle()
        backend.step(9)
        await asyncio.gather(*waiting)

    with_batcher(backend, scenario)
    assert backend.calls == [("denoise", [0]), ("denoise", [1, 2]), ("imagine", [3])]
    assert backend.deadlines == [math.inf, 2.0, math.inf]


def test_what_failed_is_owed_as_before() -> None:
    backend = Echo()
    backend.fail = {1: StaleHandle("gone")}

    async def scenario(batcher: Batcher) -> None:
        tickets = [Ticket(remaining=Work(1.0, 1.0)) for _ in range(2)]
        await batcher.run(group(0, ticket=tickets[0]))  # from here on the cost of such a call is known
        await batcher.run(group(0, ticket=tickets[0]))
        with pytest.raises(StaleHandle):
            await batcher.run(group(1, ticket=tickets[1]))
        assert tickets[0].remaining.device_s < 1.0
        assert tickets[1].remaining == Work(1.0, 1.0)
        assert tickets[1].used_s > 0

    with_batcher(backend, scenario)


def test_a_call_that_cannot_be_put_together_answers_its_group() -> None:
    async def scenario(batcher: Batcher) -> None:
        unnamed = SampleGroup("denoise", {"x": np.array(1)}, {"flow_steps": 2**40})  # more than an int32
        with pytest.raises(BackendError, match="denoise failed"):
            await batcher.run(unnamed)
        assert (await batcher.run(group(7)))["x"] == 7

    with_batcher(Echo(), scenario)


def test_a_failed_call_answers_all_of_its_groups() -> None:
    backend = Echo(gated=True)
    backend.fail = {1: BackendError("gone"), 5: ZeroDivisionError("bug")}

    async def scenario(batcher: Batcher) -> None:
        waiting = [asyncio.ensure_future(batcher.run(group(0)))]
        await settle()
        waiting += [asyncio.ensure_future(batcher.run(group(i))) for i in (1, 2)]
        waiting += [asyncio.ensure_future(batcher.run(group(5, flow_steps=1)))]
        await settle()
        backend.step(9)
        good, *bad, bug = await asyncio.gather(*waiting, return_exceptions=True)
        assert good["x"] == 0
        assert [str(error) for error in bad] == ["gone", "gone"]
        assert isinstance(bug, BackendError)
        assert "ZeroDivisionError: bug" in str(bug)

    with_batcher(backend, scenario)


@pytest.mark.parametrize(
    "outputs",
    [
        {"x": np.zeros(2), "status": np.zeros(1, np.int32)},
        {"x": np.zeros(1)},
        {"x": np.zeros(2), "status": np.array([0, 77], np.int32)},
        {"status": None},
    ],
)
@pytest.mark.parametrize("verb", ["imagine", "denoise"])
def test_a_malformed_answer_still_answers_every_group(verb: str, outputs: dict[str, Any]) -> None:
    class Malformed(Echo):
        async def run(self, verb: str, inputs: Tensors, deadline: float = 0.0) -> Tensors:
            return outputs

    async def scenario(batcher: Batcher) -> None:
        waiting = [asyncio.ensure_future(batcher.run(group(i, verb))) for i in range(2)]
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        assert any(isinstance(answer, BackendError) for answer in answers)

    with_batcher(Malformed(), scenario)


def test_closing_answers_what_is_queued() -> None:
    backend = Echo(gated=True)

    async def main() -> None:
        batcher = made(backend, rows=1, depth=1)
        batcher.start()
        waiting = [asyncio.ensure_future(batcher.run(group(i))) for i in range(3)]
        await settle()
        closing = asyncio.ensure_future(batcher.close())
        await settle()
        backend.step(9)
        await closing
        ran, *refused = await asyncio.gather(*waiting, return_exceptions=True)
        assert ran["x"] == 0
        assert all(isinstance(error, NotReady) for error in refused)
        with pytest.raises(NotReady):
            await batcher.run(group(1))

    asyncio.run(main())


class Chaos:
    """Answers, refuses, goes stale or fails as its script says, after as many turns of the loop as it says."""

    def __init__(self, script: list[tuple[int, int]]) -> None:
        self._script = script
        self.answered: list[int] = []
        self.most_on_one_model = 0
        self._running: Counter[str] = Counter()

    async def run(self, verb: str, inputs: Tensors, deadline: float = 0.0) -> Tensors:
        outcome, turns = self._script.pop() if self._script else (0, 0)
        model = VERBS[verb].model
        self._running[model] += verb != "release"
        self.most_on_one_model = max(self.most_on_one_model, *self._running.values())
        try:
            for _ in range(turns):
                await asyncio.sleep(0)
        finally:
            self._running[model] -= verb != "release"
        if outcome == 1:
            raise BackendError("scripted")
        x = inputs["x"] if "x" in inputs else np.full(len(inputs["handles"]), -1)
        status = np.full(len(x), {2: Status.STALE_HANDLE, 3: Status.ARENA_FULL}.get(outcome, Status.OK), np.int32)
        self.answered += x[status == Status.OK].tolist()
        return {"x": x, "status": status, "handles": np.zeros((len(x), 1, 2), np.int64)}

    async def close(self) -> None:
        pass


events = st.tuples(
    st.sampled_from(["imagine", "denoise", "value_features"]), st.integers(0, 3), st.booleans(), st.integers(0, 4)
)


@settings(deadline=None, max_examples=60)
@given(
    schedule=st.lists(events, max_size=30),
    script=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=30),
    rows=st.integers(1, 5),
    depth=st.integers(1, 3),
    workers=st.integers(1, 3),
    one_call_per_model=st.booleans(),
)
def test_every_group_is_answered_exactly_once(
    schedule: list[tuple[str, int, bool, int]],
    script: list[tuple[int, int]],
    rows: int,
    depth: int,
    workers: int,
    one_call_per_model: bool,
) -> None:
    """Random arrivals, deadlines, cancellations, faults and a full arena: one answer each, none lost, none doubled."""
    backend = Chaos(list(script))

    async def use(batcher: Batcher, group: SampleGroup) -> Tensors:
        outputs = await batcher.run(group)
        if group.verb == "imagine":  # whoever was given slots gives them back
            batcher.discard(outputs["handles"])
        return outputs

    async def main() -> None:
        batcher = made(backend, rows, depth, workers, one_call_per_model)
        batcher.start()
        waiting = []
        for number, (verb, urgency, cancel, turns) in enumerate(schedule):
            task = asyncio.ensure_future(use(batcher, group(number, verb, due(float(urgency)))))
            for _ in range(turns):
                await asyncio.sleep(0)
            if cancel:
                task.cancel()
            waiting.append(task)
        async with asyncio.timeout(10):  # a hang is a lost group
            answers = await asyncio.gather(*waiting, return_exceptions=True)
        for number, ((_, _, cancel, _), answer) in enumerate(zip(schedule, answers, strict=True)):
            if isinstance(answer, dict):
                assert answer["x"] == number
                assert backend.answered.count(number) == 1
            elif isinstance(answer, asyncio.CancelledError):
                assert cancel
            else:
                assert isinstance(answer, BackendError | StaleHandle)
        await batcher.close()
        assert batcher.queue_depth == 0
        if one_call_per_model:  # one that runs, and those ready
            assert backend.most_on_one_model <= 1 + max(0, depth - workers)

    asyncio.run(main())
