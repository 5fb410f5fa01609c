"""Chunks on a stream that break a limit of the policy: they arrive cut, or as an error of their observation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tests.edge.grpc.control.links import serving_rig
from tests.planning.rig import RigOptions, example_spec
from wavserve.core.control import StreamError
from wavserve.core.errors import UnsafeChunk
from wavserve.core.messages import ActionChunk
from wavserve.core.spec import LimitsSpec

SPEC = example_spec()
HIGHEST = 0.1
"""Some of the fake's plans have an action above it at once, some later, and some never."""


async def test_a_refused_plan_is_an_error_of_its_observation_and_the_stream_goes_on() -> None:
    limits = LimitsSpec(position=((-9.0, HIGHEST), None), min_horizon=3)
    spec = replace(SPEC, action=replace(SPEC.action, limits=limits))
    async with serving_rig(RigOptions(spec=spec)) as (server, _):
        link = server.link()
        await link.open()
        seen = set()
        for sequence in range(30):
            await link.send(link.observation(sequence, seed=sequence))
            answer = await link.receive(object)
            if isinstance(answer, StreamError):
                facts = (answer.name, answer.sequence, answer.fatal, answer.retryable)
                assert facts == ("unsafe-chunk", sequence, False, True)
                error = answer.error()
                assert isinstance(error, UnsafeChunk)
                assert error.broken is not None
                assert (error.broken.dimension, error.broken.limit, error.broken.bound) == (0, "position", HIGHEST)
                assert error.broken.step < 3
                assert error.broken.value > HIGHEST
                assert "position" in answer.message
                seen.add("refused")
                continue
            assert isinstance(answer, ActionChunk)
            assert (answer.actions[:, 0] <= np.float32(HIGHEST)).all()
            assert answer.valid_until_step == answer.first_control_step + len(answer.actions)
            assert (answer.cut is None) == (len(answer.actions) == SPEC.chunk)
            assert answer.fresh_memory == (not seen & {"cut", "whole"})
            seen.add("whole" if answer.cut is None else "cut")
        assert seen == {"refused", "cut", "whole"}
        assert server.counted("control_observations_total", outcome="unsafe-chunk") > 0
