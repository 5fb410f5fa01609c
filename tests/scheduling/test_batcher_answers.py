"""The batcher answers every group exactly once, whatever the backend does."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.clock import yield_to_loop
from tests.scheduling.echo import Echo, StartBatcher, due, group, limits, running_batcher, submit
from wavserve.core.errors import BackendError, NotReady, StaleHandle
from wavserve.core.types import Tensors
from wavserve.core.verbs import VERBS, GroupStatus
from wavserve.scheduling.batcher import Batcher
from wavserve.scheduling.costs import Costs
from wavserve.scheduling.groups import SampleGroup


async def test_a_call_that_cannot_be_put_together_answers_its_group(start_batcher: StartBatcher, echo: Echo) -> None:
    batcher = await start_batcher(echo)
    too_large = SampleGroup("denoise", {"x": np.array(1)}, {"flow_steps": 2**40})  # more than an int32
    with pytest.raises(BackendError, match="denoise failed"):
        await batcher.run(too_large)
    assert (await batcher.run(group(7)))["x"] == 7


async def test_a_failed_call_answers_all_of_its_groups(start_batcher: StartBatcher, gated: Echo) -> None:
    gated.failures = {1: BackendError("gone"), 5: ZeroDivisionError("bug")}
    batcher = await start_batcher(gated)
    answers = await submit(batcher, group(0))
    answers += await submit(batcher, group(1), group(2), group(5, flow_steps=1))
    gated.step(9)
    good, *failed, bug = await asyncio.gather(*answers, return_exceptions=True)
    assert good["x"] == 0
    assert [str(error) for error in failed] == ["gone", "gone"]
    assert isinstance(bug, BackendError)
    assert "ZeroDivisionError: bug" in str(bug)


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
async def test_malformed_outputs_still_answer_every_group(
    start_batcher: StartBatcher, verb: str, outputs: dict[str, Any]
) -> None:
    class Malformed(Echo):
        async def run(self, verb: str, inputs: Tensors, deadline: float = 0.0) -> Tensors:
            return outputs

    batcher = await start_batcher(Malformed())
    answers = await asyncio.gather(*(batcher.run(group(i, verb)) for i in range(2)), return_exceptions=True)
    assert any(isinstance(answer, BackendError) for answer in answers)


async def test_closing_answers_the_queued_groups(start_batcher: StartBatcher, gated: Echo) -> None:
    batcher = await start_batcher(gated, limits(rows=1))
    answers = await submit(batcher, *map(group, range(3)))
    closing = asyncio.ensure_future(batcher.close())
    await yield_to_loop(30)
    gated.step(9)
    await closing
    ran, *refused = await asyncio.gather(*answers, return_exceptions=True)
    assert ran["x"] == 0
    assert all(isinstance(error, NotReady) for error in refused)
    with pytest.raises(NotReady):
        await batcher.run(group(1))


class Chaos:
    """A backend that follows a script of (outcome, turns of the event loop before it), from its end.

    Outcomes: 0 an answer, 1 BackendError, 2 a stale handle, 3 a full arena.
    """

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
            await yield_to_loop(turns)
        finally:
            self._running[model] -= verb != "release"
        if outcome == 1:
            raise BackendError("scripted")
        x = inputs["x"] if "x" in inputs else np.full(len(inputs["handles"]), -1)
        status = np.full(
            len(x), {2: GroupStatus.STALE_HANDLE, 3: GroupStatus.ARENA_FULL}.get(outcome, GroupStatus.OK), np.int32
        )
        self.answered += x[status == GroupStatus.OK].tolist()
        return {"x": x, "status": status, "handles": np.zeros((len(x), 1, 2), np.int64)}

    async def close(self) -> None:
        pass


async def run_and_discard(batcher: Batcher, group: SampleGroup) -> Tensors:
    """Runs a group and frees the slots that it was given."""
    outputs = await batcher.run(group)
    if group.verb == "imagine":
        batcher.discard(outputs["handles"])
    return outputs


arrivals = st.tuples(
    st.sampled_from(["imagine", "denoise", "value_features"]),
    st.integers(0, 3),  # deadline
    st.booleans(),  # whether the caller is cancelled
    st.integers(0, 4),  # turns of the event loop until the next arrival
)


@settings(deadline=None, max_examples=60)
@given(
    schedule=st.lists(arrivals, max_size=30),
    script=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=30),
    rows=st.integers(1, 5),
    depth=st.integers(1, 3),
    workers=st.integers(1, 3),
    one_call_per_model=st.booleans(),
)
async def test_every_group_is_answered_exactly_once(
    schedule: list[tuple[str, int, bool, int]],
    script: list[tuple[int, int]],
    rows: int,
    depth: int,
    workers: int,
    one_call_per_model: bool,
) -> None:
    """Random arrivals, deadlines, cancellations, faults and a full arena: one answer each, none lost, none doubled."""
    backend = Chaos(list(script))
    config = limits(rows=rows, workers=workers, depth=depth, one_call_per_model=one_call_per_model)
    async with running_batcher(backend, config) as batcher:
        callers = []
        for number, (verb, deadline, cancel, turns) in enumerate(schedule):
            caller = asyncio.ensure_future(run_and_discard(batcher, group(number, verb, due(float(deadline)))))
            await yield_to_loop(turns)
            if cancel:
                caller.cancel()
            callers.append(caller)
        async with asyncio.timeout(10):  # a hang is a lost group
            answers = await asyncio.gather(*callers, return_exceptions=True)
        for number, ((_, _, cancel, _), answer) in enumerate(zip(schedule, answers, strict=True)):
            if isinstance(answer, dict):
                assert answer["x"] == number
                assert backend.answered.count(number) == 1
            elif isinstance(answer, asyncio.CancelledError):
                assert cancel
            else:
                assert isinstance(answer, BackendError | StaleHandle)
    assert batcher.queue_depth == 0
    if one_call_per_model:  # the running call, and those that wait behind it
        assert backend.most_on_one_model <= 1 + max(0, depth - workers)


@pytest.mark.parametrize(
    "bad",
    [
        SampleGroup("levitate", {"x": np.array(1)}),
        SampleGroup("denoise", {"x": None}),  # type: ignore[dict-item]
        SampleGroup("score", {"x": np.array(1), "handles": np.array([3, 4])}),
        SampleGroup("release", {"handles": np.array(3)}),
        SampleGroup("denoise", {"x": np.array(1)}, ticket=None),  # type: ignore[arg-type]
    ],
)
async def test_a_malformed_group_is_answered_and_others_are_served(
    start_batcher: StartBatcher, echo: Echo, bad: SampleGroup
) -> None:
    batcher = await start_batcher(echo)
    async with asyncio.timeout(10):
        with pytest.raises(BackendError):
            await batcher.run(bad)
        assert (await batcher.run(group(7)))["x"] == 7


@pytest.mark.parametrize("handles", [np.zeros((2, 1), np.int64), np.zeros((2, 1, 3), np.int64), np.zeros(2, np.int64)])
async def test_malformed_handles_of_a_model_answer_every_group(start_batcher: StartBatcher, handles: Any) -> None:
    class Malformed(Echo):
        async def run(self, verb: str, inputs: Tensors, deadline: float = 0.0) -> Tensors:
            outputs = await super().run(verb, inputs, deadline)
            return outputs | {"handles": handles} if verb == "imagine" else outputs

    batcher = await start_batcher(Malformed())
    async with asyncio.timeout(10):
        answers = await asyncio.gather(*(batcher.run(group(i, "imagine")) for i in range(2)), return_exceptions=True)
        assert all(isinstance(answer, BackendError) for answer in answers)
        assert (await batcher.run(group(7)))["x"] == 7


async def test_a_fault_in_the_accounts_of_a_call_answers_its_groups_and_ends_no_other(echo: Echo) -> None:
    class Broken(Costs):
        def measured(self, *args: Any) -> None:
            raise ZeroDivisionError("bug")

    def on_call(verb: str, *sizes: float) -> None:
        raise ZeroDivisionError("bug")

    def on_group_call(queued_s: float, call_s: float) -> None:
        raise ZeroDivisionError("bug")

    batcher = Batcher(echo, limits(), Broken(), on_call)
    batcher.start()
    async with asyncio.timeout(10):
        for x in range(3):
            counted = group(x)
            counted.on_call = on_group_call
            assert (await batcher.run(counted))["x"] == x
        await batcher.close()


async def test_a_dispatcher_that_dies_answers_its_queue_and_reports_its_death(gated: Echo) -> None:
    deaths: list[str] = []
    batcher = Batcher(gated, limits(rows=1), Costs())
    batcher.start(deaths.append)
    tickets = [due(1.0), due(2.0), due(3.0)]
    answers = await submit(batcher, *(group(x, ticket=ticket) for x, ticket in enumerate(tickets)))
    tickets[1].due = None  # type: ignore[assignment] - a bug that belongs to no single call: the queue has no order
    gated.step()
    async with asyncio.timeout(10):
        ran, *queued = await asyncio.gather(*answers, return_exceptions=True)
        assert ran["x"] == 0
        assert [type(error) for error in queued] == [NotReady, NotReady]
        assert deaths == ["batcher"]
        with pytest.raises(NotReady):
            await batcher.run(group(4))
        await batcher.close()
