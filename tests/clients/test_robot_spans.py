"""The spans of a robot's observations: one each, from `observe` to its answer, which the gateway's spans join."""

from __future__ import annotations

from tests.clients.test_robot_core import Rig, observation_at
from tests.clients.test_robot_service import Service, the_next
from tests.planning.rig import RigOptions, rigged
from tests.spans import Spans
from wavserve.clients.robot import RobotOptions
from wavserve.core.control import DropReason, Welcome
from wavserve.core.errors import NotReady
from wavserve.core.messages import ActionChunk
from wavserve.edge.trail import Trail


async def test_an_observation_and_its_plan_are_one_trace() -> None:
    robot, gateway = Spans(), Spans()
    async with rigged(RigOptions()) as rig:
        service = Service(rig.policy, Trail(gateway.tracer()))
        await service.start()
        async with service.client(tracer=robot.tracer("client")) as (client, events):
            await the_next(events, Welcome)
            for step in range(2):
                client.observe(service.observation(step))
                await the_next(events, ActionChunk)
        await service.rpc.stop(None)
    assert robot.paths() == {"robot.plan", "robot.plan > encode pictures"}
    sent = [span.context.span_id for span in robot.named("robot.plan")]
    assert [span.parent.span_id for span in gateway.named("gateway.plan")] == sent
    assert [span.attributes["wavserve.robot"] for span in gateway.named("gateway.plan")] == ["arm", "arm"]
    assert {span.attributes["wavserve.outcome"] for span in robot.named("robot.plan")} == {"planned"}
    assert "gateway.plan > plan > iteration > score > call score" in gateway.paths()


def outcomes(spans: Spans) -> list[object]:
    return [span.attributes["wavserve.outcome"] for span in spans.named("robot.plan")]


def test_an_observation_without_a_chunk_ends_its_span_too() -> None:
    spans = Spans()
    rig = Rig(RobotOptions(tracer=spans.tracer("client")))
    for step in range(3):
        rig.core.observe(observation_at(step))
    assert outcomes(spans) == [DropReason.SUPERSEDED.value] * 2
    rig.core.ended(NotReady("the server ended the stream"))
    assert outcomes(spans)[2:] == [DropReason.RESET.value]


def test_an_observation_that_was_sent_is_unanswered_when_its_stream_ends() -> None:
    spans = Spans()
    rig = Rig(RobotOptions(tracer=spans.tracer("client")))
    rig.core.observe(observation_at(0))
    assert rig.written().traceparent.endswith("-01")
    rig.core.ended(NotReady("the server ended the stream"))
    assert outcomes(spans) == ["unanswered"]
