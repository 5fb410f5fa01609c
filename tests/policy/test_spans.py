"""The spans of a plan: a part for each hop, parents as the algorithm has them, links of plans that share a call."""

from __future__ import annotations

import asyncio

import pytest

from tests.planning.rig import MakeRig, Rig, RigOptions, example_request
from tests.spans import Spans
from wavserve.core.errors import BackendError
from wavserve.core.messages import ActionChunk
from wavserve.core.tracing import current, within
from wavserve.planning.timings import Progress
from wavserve.scheduling.groups import SHORTEST_WAIT_NS

CALLS = ("imagine", "score", "value_features", "decode")


async def planned(rig: Rig, spans: Spans, seed: int = 1, **changes: object) -> ActionChunk:
    with within(spans.tracer().begin("gateway.plan")):
        return await rig.policy.plan(example_request(rig.spec, seed, **changes))


async def test_a_plan_has_a_span_for_each_hop(rig: Rig) -> None:
    spans, progress = Spans(), Progress()
    with within(spans.tracer().begin("gateway.plan")):
        await rig.policy.plan(example_request(rig.spec), None, None, progress)
    assert progress.device == "the device"
    expected = {
        "gateway.plan",
        "gateway.plan > session.load",
        "gateway.plan > plan",
        "gateway.plan > plan > placement",
        "gateway.plan > plan > admission",
        "gateway.plan > plan > encode",
        "gateway.plan > plan > encode > encode_text > call encode_text",
        "gateway.plan > plan > encode > encode_images > call encode_images",
        "gateway.plan > plan > iteration",
        "gateway.plan > plan > iteration > imagine > call imagine",
        "gateway.plan > plan > iteration > score > call score",
        "gateway.plan > plan > iteration > refit",
        "gateway.plan > plan > final > imagine > call imagine",
        "gateway.plan > plan > final > value_features > call value_features",
        "gateway.plan > plan > final > decode > call decode",
        "gateway.plan > session.commit",
    }
    assert expected <= spans.paths()
    assert [span.attributes["wavserve.iteration"] for span in spans.named("iteration")] == [0, 1]
    assert len(spans.named("call score")) <= len(spans.named("score")) == 2 * 3, "2 iterations of 3 slices"
    assert current().context is None


async def test_plans_that_share_a_call_link_to_it(make_rig: MakeRig) -> None:
    entered, gate = asyncio.Event(), asyncio.Event()

    async def before(verb: str) -> None:
        entered.set()
        await gate.wait()

    rig = await make_rig(RigOptions(before=before, workers=1, depth=1))
    spans = [Spans() for _ in range(3)]
    plans = [asyncio.create_task(planned(rig, own, seed)) for seed, own in enumerate(spans)]
    await entered.wait()
    for _ in range(20):
        await asyncio.sleep(0)  # the other plans queue up behind the call that runs
    await asyncio.sleep(2 * SHORTEST_WAIT_NS / 1e9)
    gate.set()
    await asyncio.gather(*plans)
    calls = [span for own in spans for span in own.ended if span.name.startswith("call ")]
    shared = {span.context.span_id for span in calls if span.attributes["wavserve.groups"] > 1}
    links = {link.context.span_id for own in spans for span in own.ended for link in span.links}
    assert links
    assert links <= shared
    waits = [span for own in spans for span in own.named("queued")]
    assert waits
    assert all(span.end_time - span.start_time >= SHORTEST_WAIT_NS for span in waits)


async def test_a_retry_that_joins_a_running_plan_links_to_the_first_request(make_rig: MakeRig) -> None:
    entered, gate = asyncio.Event(), asyncio.Event()

    async def before(verb: str) -> None:
        entered.set()
        await gate.wait()

    rig = await make_rig(RigOptions(before=before))
    gate.set()
    session_id = (await planned(rig, Spans())).session_id
    gate.clear()
    entered.clear()
    first, second = Spans(), Spans()
    running = asyncio.create_task(planned(rig, first, session_id=session_id, sequence=1))
    await entered.wait()
    retry = asyncio.create_task(planned(rig, second, session_id=session_id, sequence=1))
    for _ in range(5):
        await asyncio.sleep(0)
    gate.set()
    assert (await running).chunk_id == (await retry).chunk_id
    [link] = second.one("gateway.plan").links
    assert link.context.span_id == first.one("gateway.plan").context.span_id
    assert len(second.ended) == 1, "the plan's own spans are in the first trace"


async def test_a_failed_call_ends_every_span_as_failed(make_rig: MakeRig) -> None:
    async def before(verb: str) -> None:
        if verb == "score":
            raise BackendError("score: no")

    rig, spans = await make_rig(RigOptions(before=before)), Spans()
    with pytest.raises(BackendError):
        await planned(rig, spans)
    for name in ("call score", "score", "iteration", "plan", "gateway.plan"):
        assert {span.attributes.get("error.type") for span in spans.named(name)} & {"backend-error"}, name
    begun = {span.context.span_id for span in spans.ended}
    parents = {span.parent.span_id for span in spans.ended if span.parent is not None}
    assert parents <= begun, "no span is left open"


async def test_a_cancelled_plan_leaves_no_span_open(make_rig: MakeRig) -> None:
    entered = asyncio.Event()

    async def before(verb: str) -> None:
        if verb == "score":
            entered.set()
            await asyncio.Event().wait()

    rig, spans = await make_rig(RigOptions(before=before)), Spans()
    plan = asyncio.create_task(planned(rig, spans))
    await entered.wait()
    plan.cancel()
    await asyncio.gather(plan, return_exceptions=True)
    await rig.policy.drain(5.0)
    async with asyncio.timeout(10):
        while not spans.named("call score"):  # noqa: ASYNC110  # the call ends a moment after its callers
            await asyncio.sleep(0.01)
    begun = {span.context.span_id for span in spans.ended}
    assert {span.parent.span_id for span in spans.ended if span.parent is not None} <= begun
