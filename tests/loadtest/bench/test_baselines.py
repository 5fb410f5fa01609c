"""The baseline makes the same plans as the service, so the benchmark compares speed only."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from loadtest.bench.baselines import PlainPolicy, SerialPolicy
from wavserve.app.service import assemble
from wavserve.app.settings_sources import Given, load_settings
from wavserve.bundle import bundle
from wavserve.core.errors import DeadlineExceeded, UnknownSession
from wavserve.core.types import PlanRequest

INSTRUCTION = "pick up the alphabet soup"


@pytest.fixture(scope="module")
def plain(tiny: bundle.Bundle) -> PlainPolicy:
    return PlainPolicy(tiny, "digest")


def observation(tiny: bundle.Bundle, number: int, session: str | None, mode: str) -> PlanRequest:
    rng = np.random.default_rng(number)
    images = {c.name: rng.integers(0, 256, (c.height, c.width, 3), np.uint8) for c in tiny.spec.cameras}
    state = rng.normal(size=tiny.spec.state.dim).astype(np.float32)
    return PlanRequest(
        images=images,
        state=state,
        instruction=INSTRUCTION,
        session_id=session,
        sequence=number,
        control_step=8 * number,
        executed_steps=8 * number,
        options={"mode": mode},
        seed=3,
    )


@pytest.mark.parametrize("mode", ["paper", "off"])
async def test_the_plain_policy_plans_as_ours_does(tiny: bundle.Bundle, plain: PlainPolicy, mode: str) -> None:
    """Two observations of a session, so that the frame memory is compared too."""
    flags = [Given("backend.kind", "local", "test"), Given("bundle.path", str(tiny.folder), "test")]
    service = await assemble(load_settings(None, {}, flags).settings)
    service.policy.warm = True
    try:
        our_session = their_session = None
        for number in range(2):
            ours = await service.policy.plan(observation(tiny, number, our_session, mode))
            theirs = await SerialPolicy(plain).plan(observation(tiny, number, their_session, mode))
            our_session, their_session = ours.session_id, theirs.session_id
            assert np.abs(ours.actions).max() > 1e-2
            np.testing.assert_allclose(theirs.actions, ours.actions, atol=1e-4, rtol=0)
            assert theirs.receipt.iterations_done == ours.receipt.iterations_done == (3 if mode == "paper" else 0)
    finally:
        await service.close()


async def test_plans_run_one_at_a_time_and_late_ones_are_refused(tiny: bundle.Bundle, plain: PlainPolicy) -> None:
    serial = SerialPolicy(plain)
    deadline = asyncio.get_running_loop().time() + 0.05  # the loop's clock is the monotonic one
    first = asyncio.create_task(serial.plan(observation(tiny, 0, None, "paper")))
    await asyncio.sleep(0)
    with pytest.raises(DeadlineExceeded, match="in the queue"):
        await serial.plan(observation(tiny, 0, None, "off"), deadline)
    assert first.done(), "the second waited for the first"
    with pytest.raises(DeadlineExceeded, match="too late"):
        await serial.plan(observation(tiny, 0, None, "paper"), asyncio.get_running_loop().time() + 0.05)
    with pytest.raises(UnknownSession):
        await serial.plan(observation(tiny, 0, "nobody", "off"))
