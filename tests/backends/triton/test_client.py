"""What only the Triton backend has: keys for shared tensors, reloaded models, deadlines, missing servers."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping

import numpy as np
import pytest

from tests.backends.calls import denoise_inputs, example_inputs, value_inputs
from tests.backends.rig import TIMEOUT_S, RunningTriton, Subject
from wavserve.backends.triton.client import TritonBackend
from wavserve.bundle.bundle import Bundle
from wavserve.core.errors import BackendError, DeadlineExceeded, ModelDown
from wavserve.core.tensor_cache import KEY_BYTES
from wavserve.core.verbs import GroupStatus


@pytest.fixture
async def triton(running_triton: RunningTriton) -> AsyncIterator[Subject]:
    """The running Triton with free slots, see `RunningTriton.subject`."""
    async with running_triton.subject() as subject:
        yield subject


async def test_tensors_that_a_plan_shares_travel_once(triton: Subject, running_triton: RunningTriton) -> None:
    traffic: Counter[str] = Counter()

    def count(verb: str, sent: Mapping[str, int], received: Mapping[str, int]) -> None:
        traffic.update(sent)

    inputs = example_inputs(triton.spec, "imagine", 2)
    backend = TritonBackend(running_triton.url, on_traffic=count)
    async with asyncio.timeout(TIMEOUT_S):
        for _ in range(3):
            handles = (await backend.run("imagine", inputs))["handles"]
            await backend.run("release", {"handles": handles})
    await backend.close()
    assert traffic["memory"] == inputs["memory"].nbytes
    assert traffic["mean"] == inputs["mean"].nbytes
    assert traffic["memory_key"] == 3 * 2 * KEY_BYTES


async def test_a_reloaded_model_gets_the_shared_tensors_again(triton: Subject, running_triton: RunningTriton) -> None:
    """A reloaded model knows no keys. The call that finds that out is answered nevertheless."""
    backend = running_triton.backend
    inputs = example_inputs(triton.spec, "denoise")
    before = (await triton.run("denoise", inputs))["latents"]
    await backend.unload("video_dit", TIMEOUT_S)
    await backend.load("video_dit", TIMEOUT_S)
    np.testing.assert_array_equal((await triton.run("denoise", inputs))["latents"], before)


async def test_handles_of_an_earlier_slab_are_stale(triton: Subject, running_triton: RunningTriton) -> None:
    """After a reload of the arena's owner, readers find the new slab by its handles, and refuse old handles."""
    backend = running_triton.backend
    old = await triton.imagine(samples=2)
    await backend.unload("video_dit", TIMEOUT_S)
    await backend.load("video_dit", TIMEOUT_S)
    new = await triton.imagine(samples=2)
    for handles, status in ((old, GroupStatus.STALE_HANDLE), (new, GroupStatus.OK), (old, GroupStatus.STALE_HANDLE)):
        outputs = await triton.run("score", value_inputs(triton.spec, handles, flow_steps=1, release=0))
        assert outputs["status"].tolist() == [status]
    both = await triton.run("score", value_inputs(triton.spec, np.concatenate([old, new]), flow_steps=1, release=1))
    assert both["status"].tolist() == [GroupStatus.STALE_HANDLE, GroupStatus.OK]
    assert await triton.used() == 0


async def test_a_call_ends_at_its_deadline(triton: Subject) -> None:
    handles = await triton.imagine()
    endless = value_inputs(triton.spec, handles, 16, flow_steps=3000, release=1)
    for deadline in (time.monotonic() + 0.3, time.monotonic() - 1):
        with pytest.raises(DeadlineExceeded):
            await triton.run("score", endless, deadline)
    assert await triton.used() == 2  # the call stopped before it released them


async def test_a_missing_server_is_reported_as_a_model_down(tiny: Bundle) -> None:
    down: list[str] = []
    backend = TritonBackend("127.0.0.1:1", on_down=down.append)
    with pytest.raises(ModelDown):
        await backend.run("denoise", denoise_inputs(tiny.spec))
    await backend.close()
    assert down == ["video_dit"]


async def test_wrong_shapes_fail_only_their_own_call(triton: Subject) -> None:
    good = example_inputs(triton.spec, "denoise")
    for wrong in ({"memory": good["memory"][..., :1]}, {"text_key": good["text_key"][:, :5]}):
        with pytest.raises(BackendError):
            await triton.run("denoise", {**good, **wrong})
    assert (await triton.run("denoise", good))["status"].tolist() == [GroupStatus.OK]


async def test_a_load_that_takes_too_long_names_its_setting() -> None:
    """Of a server that is silent: a real one sometimes answers within any time that a test would wait."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        backend = TritonBackend(f"127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(BackendError, match=r"encoder: not loaded within triton.load_s \(0\.2 s\)"):
            await backend.load("encoder", 0.2)
        await backend.close()


async def test_a_server_calls_a_model_ready_whose_process_has_died(
    triton: Subject, running_triton: RunningTriton
) -> None:
    """So a supervisor tells a dead model from one that is being loaded."""
    backend = running_triton.backend
    assert await backend.state("nothing", TIMEOUT_S) == ""
    os.kill((await backend.describe("value_dit", TIMEOUT_S)).process[0], signal.SIGKILL)

    async def until_it_fails() -> None:  # Triton notices after a second
        while True:
            await backend.describe("value_dit", TIMEOUT_S)

    with pytest.raises(ModelDown):
        await asyncio.wait_for(until_it_fails(), TIMEOUT_S)
    assert await backend.state("value_dit", TIMEOUT_S) == "READY"
    await backend.unload("value_dit", TIMEOUT_S)
    loading = asyncio.create_task(backend.load("value_dit", TIMEOUT_S))
    seen: set[str] = set()
    while not loading.done():
        seen.add(await backend.state("value_dit", TIMEOUT_S))
        await asyncio.sleep(0.02)
    await loading
    assert "LOADING" in seen
    assert (await backend.describe("value_dit", TIMEOUT_S)).model == "value_dit"
