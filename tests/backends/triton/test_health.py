"""The supervisor's decisions, on a server of a few lines: what it repairs, how, and when it restarts the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from tests.backends.triton.supervised import CONFIG, FakeTriton, Watched, until, watched
from tests.computing import starved, stop
from wavserve.backends.triton.health import Supervisor, WatchConfig
from wavserve.core.errors import ModelDown
from wavserve.core.verbs import MODELS


@pytest.fixture
async def owned() -> AsyncIterator[Watched]:
    """The server is the supervisor's child."""
    async with watched() as own:
        yield own


@pytest.fixture
async def foreign() -> AsyncIterator[Watched]:
    """Another process started the server."""
    async with watched(is_owned=False) as other:
        yield other


@pytest.fixture
async def on_cuda() -> AsyncIterator[Watched]:
    async with watched(device="cuda") as own:
        yield own


@pytest.mark.parametrize("is_owned", [True, False])
async def test_a_model_that_does_not_answer_is_reloaded_and_no_other(
    is_owned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with watched(is_owned=is_owned) as either:
        either.triton.loaded["value_dit"] = False
        await until(lambda: bool(either.changes))
        await until(lambda: either.supervisor.models.up)
        assert either.triton.calls[:3] == ["give up value_dit", "unload value_dit", "load value_dit"]
        assert not any("load" in call for call in either.triton.calls[3:])
        assert either.changes == [("value_dit", False), ("value_dit", True)]
    assert any("value_dit is unavailable, it does not answer (value_dit)" in line for line in caplog.messages)


@asynccontextmanager
async def unstarted(triton: FakeTriton, config: WatchConfig = CONFIG) -> AsyncIterator[Supervisor]:
    """The supervisor of a server that another process started."""
    supervisor = Supervisor("here", triton, config)  # type: ignore[arg-type]
    try:
        yield supervisor
    finally:
        await supervisor.close()


async def test_a_model_that_is_dead_at_the_start_is_repaired() -> None:
    triton = FakeTriton()
    triton.loaded = {model: model != "value_dit" for model in MODELS}
    async with unstarted(triton) as supervisor:
        with pytest.raises(ModelDown, match="value_dit"):
            await supervisor.start()
        await until(lambda: supervisor.models.up)
        await supervisor.start()
        assert triton.calls == ["give up value_dit", "unload value_dit", "load value_dit"]


@pytest.mark.parametrize("state", ["LOADING", "UNAVAILABLE", ""])
async def test_a_server_that_still_loads_its_models_at_the_start_is_left_alone(state: str) -> None:
    triton = FakeTriton()
    triton.loaded = {model: model != "value_dit" for model in MODELS}
    triton.states["value_dit"] = state
    async with unstarted(triton) as supervisor:
        with pytest.raises(ModelDown, match="value_dit"):
            await supervisor.start()
        await asyncio.sleep(10 * CONFIG.canary_s)
        assert triton.calls == []


async def test_two_gateways_do_not_undo_each_others_repair() -> None:
    triton = FakeTriton()
    triton.loaded = dict.fromkeys(MODELS, True)
    async with unstarted(triton) as one, unstarted(triton, replace(CONFIG, canary_s=0.05)) as other:
        await asyncio.gather(one.start(), other.start())
        triton.on_down = lambda model: None  # a gateway does not hear of another one's calls
        triton.load_s = 0.3  # the other one looks several times meanwhile
        triton.loaded["value_dit"] = False
        await until(lambda: "load value_dit" in triton.calls)
        await until(lambda: one.models.up and other.models.up)
        assert triton.calls.count("load value_dit") == triton.calls.count("unload value_dit") == 1


async def test_a_call_that_finds_a_model_unavailable_marks_it_down_at_once(owned: Watched) -> None:
    owned.supervisor.mark_down("encoder")
    assert not owned.supervisor.models.up  # before the supervisor has asked the model
    await until(lambda: owned.supervisor.models.up)
    assert owned.triton.calls == []  # the model answered, so nothing was repaired


async def test_on_cuda_the_readers_are_reloaded_with_the_arenas_owner(on_cuda: Watched) -> None:
    on_cuda.triton.loaded["video_dit"] = False
    await until(lambda: bool(on_cuda.changes))
    await until(lambda: on_cuda.supervisor.models.up)
    loads = {call for call in on_cuda.triton.calls if call.startswith("load")}
    assert loads == {"load video_dit", "load value_dit", "load action_dit"}
    on_cuda.triton.calls.clear()
    on_cuda.changes.clear()
    on_cuda.triton.loaded["value_dit"] = False
    await until(lambda: bool(on_cuda.changes))
    await until(lambda: on_cuda.supervisor.models.up)
    assert [call for call in on_cuda.triton.calls if call.startswith("load")] == ["load value_dit"]


async def test_an_owned_server_is_restarted_when_repairs_fail(owned: Watched) -> None:
    owned.triton.broken.add("action_dit")
    owned.triton.loaded["action_dit"] = False
    await until(lambda: "kill" in owned.triton.calls)
    before = owned.triton.calls[: owned.triton.calls.index("kill")]
    assert before.count("load action_dit") == CONFIG.max_repairs
    owned.triton.broken.clear()
    await until(lambda: owned.supervisor.models.up)
    assert "reconnect somewhere" in owned.triton.calls
    assert all(owned.triton.loaded[model] for model in MODELS)


async def test_a_foreign_server_is_repaired_without_limit_and_never_killed(foreign: Watched) -> None:
    foreign.triton.broken.add("action_dit")
    foreign.triton.loaded["action_dit"] = False
    await until(lambda: foreign.triton.calls.count("load action_dit") > CONFIG.max_repairs + 1)
    assert not foreign.supervisor.models.up
    foreign.triton.broken.clear()
    await until(lambda: foreign.supervisor.models.up)
    assert "kill" not in foreign.triton.calls


async def test_an_owned_server_that_exits_is_restarted_with_all_its_models(owned: Watched) -> None:
    owned.triton.kill()
    await until(lambda: bool(owned.changes))
    await until(lambda: owned.supervisor.models.up)
    assert {call for call in owned.triton.calls if call.startswith("load")} >= {f"load {model}" for model in MODELS}


async def test_a_restart_is_tried_again_when_a_model_does_not_load(owned: Watched) -> None:
    owned.triton.broken.add("encoder")
    owned.triton.kill()
    await until(lambda: owned.triton.calls.count("reconnect somewhere") >= 2)
    assert not owned.supervisor.models.up
    owned.triton.broken.clear()
    await until(lambda: owned.supervisor.models.up)


async def test_models_that_change_to_another_policy_are_noticed(owned: Watched) -> None:
    owned.supervisor.models.expect("d" * 64, 1)
    assert not owned.supervisor.models.serves_wrong_policy
    owned.triton.digest = "e" * 64
    await until(lambda: owned.supervisor.models.serves_wrong_policy)
    assert owned.supervisor.models.up  # the models answer, and their policy is reported apart


async def test_an_endpoint_of_another_policy_does_not_count_while_it_is_down(foreign: Watched) -> None:
    foreign.supervisor.models.expect("e" * 64, 1)
    assert foreign.supervisor.models.serves_wrong_policy
    foreign.triton.broken = set(MODELS)
    foreign.triton.loaded = dict.fromkeys(MODELS, False)
    await until(lambda: not foreign.supervisor.models.serves_wrong_policy)
    assert not foreign.supervisor.models.up


async def test_an_unexpected_error_does_not_end_the_watch(owned: Watched) -> None:
    owned.triton.failures = [OSError("too many open files") for _ in MODELS]
    await until(lambda: not owned.triton.failures)
    await until(lambda: owned.supervisor.models.up)
    owned.triton.loaded["value_dit"] = False
    await until(lambda: "load value_dit" in owned.triton.calls)
    await until(lambda: owned.supervisor.models.up)


async def test_a_restart_is_tried_again_when_the_server_does_not_start(owned: Watched) -> None:
    owned.triton.kill()
    owned.triton.failures = [OSError("no memory")]
    await until(lambda: "reconnect somewhere" in owned.triton.calls)
    await until(lambda: owned.supervisor.models.up)


@pytest.fixture
async def pausing() -> AsyncIterator[Watched]:
    """The supervisor pauses for a minute because it could not repair one model."""
    async with watched(config=replace(CONFIG, canary_s=60.0)) as own:
        own.triton.broken.add("value_dit")
        break_model(own, "value_dit")
        await until(lambda: "load value_dit" in own.triton.calls)
        own.changes.clear()
        yield own


async def test_another_model_is_repaired_during_the_pause_after_a_failed_repair(pausing: Watched) -> None:
    break_model(pausing, "encoder")
    await until(lambda: ("encoder", True) in pausing.changes)


async def test_the_server_is_restarted_during_the_pause_after_a_failed_repair(pausing: Watched) -> None:
    pausing.triton.broken.clear()
    pausing.triton.kill()
    await until(lambda: pausing.supervisor.models.up)


async def test_nothing_is_repaired_while_draining(owned: Watched) -> None:
    """A model that fails is marked down and stays down. A server that exits is not restarted."""
    owned.supervisor.drain()
    break_model(owned, "encoder")
    await asyncio.sleep(10 * CONFIG.canary_s)
    owned.triton.kill()
    await asyncio.sleep(10 * CONFIG.canary_s)
    assert not owned.supervisor.models.up
    assert owned.triton.calls == ["kill"]


async def test_a_repair_under_way_ends_when_draining_begins(owned: Watched) -> None:
    owned.triton.broken.add("encoder")
    break_model(owned, "encoder")
    await until(lambda: "load encoder" in owned.triton.calls)
    owned.supervisor.drain()
    await asyncio.sleep(10 * CONFIG.canary_s)
    owned.triton.calls.clear()
    await asyncio.sleep(10 * CONFIG.canary_s)
    assert owned.triton.calls == []


def break_model(at: Watched, model: str) -> None:
    """Ends a model, as a call that finds it unavailable reports it."""
    at.triton.loaded[model] = False
    at.supervisor.mark_down(model)


async def test_a_process_that_dies_while_its_model_is_loaded_fails_the_start() -> None:
    triton = FakeTriton()
    triton.dying.add("value_dit")
    supervisor = Supervisor("here", triton, CONFIG, triton)  # type: ignore[arg-type]
    async with asyncio.timeout(20):
        with pytest.raises(ModelDown, match="ended by signal 9"):
            await supervisor.start()
    await supervisor.close()


async def test_a_process_that_dies_while_its_model_is_reloaded_is_tried_again(owned: Watched) -> None:
    owned.triton.dying.add("value_dit")
    break_model(owned, "value_dit")
    await until(lambda: owned.triton.calls.count("load value_dit") > 1)
    owned.triton.dying.clear()
    await until(lambda: owned.supervisor.models.up)


@pytest.mark.parametrize("turns", range(6))
async def test_close_ends_watchers_that_have_just_been_woken(turns: int) -> None:
    triton = FakeTriton()
    supervisor = Supervisor("here", triton, replace(CONFIG, canary_s=60.0), triton)  # type: ignore[arg-type]
    await supervisor.start()
    await asyncio.sleep(0.01)
    for model in MODELS:
        supervisor.mark_down(model)
    for _ in range(turns):
        await asyncio.sleep(0)
    async with asyncio.timeout(20):
        await supervisor.close()


async def test_an_arena_too_small_for_a_slice_is_noticed(owned: Watched) -> None:
    """A Triton that restarts with fewer slots would keep a plan waiting forever."""
    owned.supervisor.models.expect("d" * 64, 8)
    assert owned.supervisor.models.fits
    assert owned.supervisor.models.num_slots == 8
    owned.triton.slots = 7
    await until(lambda: not owned.supervisor.models.fits)


async def test_a_watch_that_dies_is_reported() -> None:
    deaths: list[str] = []
    triton = FakeTriton()
    supervisor = Supervisor("here", triton, CONFIG, triton, on_death=deaths.append)  # type: ignore[arg-type]
    await supervisor.start()
    triton.failures = [asyncio.CancelledError()]  # type: ignore[list-item]
    await until(lambda: bool(deaths))
    [dead] = deaths
    assert dead.startswith("here: the watch of ")
    await supervisor.close()
    assert len(deaths) == 1


async def test_a_stuck_call_marks_its_model_down_and_a_model_that_answers_is_not_reloaded(owned: Watched) -> None:
    owned.supervisor.on_stuck("value_dit")
    assert not owned.supervisor.models.up
    await until(lambda: owned.supervisor.models.up)
    assert owned.triton.calls == ["give up value_dit's plans"]


async def test_a_model_that_stands_still_while_nothing_else_runs_is_reloaded(owned: Watched) -> None:
    owned.triton.hanging.add("value_dit")
    await until(lambda: "load value_dit" in owned.triton.calls)
    await until(lambda: owned.supervisor.models.up)


async def test_a_test_call_that_waits_behind_calls_of_plans_is_no_alarm(owned: Watched) -> None:
    owned.triton.idle = False
    owned.triton.hanging.add("value_dit")
    await asyncio.sleep(0.7)  # the limit is below the ceiling of this supervisor, and the test must end
    owned.triton.hanging.clear()
    assert owned.triton.calls == []


async def test_a_server_that_stands_still_is_killed_and_no_model_is_unloaded(owned: Watched) -> None:
    owned.triton.live = False
    owned.triton.hanging = set(MODELS)
    await until(lambda: "kill" in owned.triton.calls)
    assert not any("unload" in call for call in owned.triton.calls)
    owned.triton.live = True
    owned.triton.hanging.clear()
    await until(lambda: owned.supervisor.models.up)


async def test_a_stuck_call_has_the_server_itself_asked_at_once_and_once_is_said_that_it_is_silent(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Before any test call has run out of time: theirs would be a minute."""
    async with watched(config=replace(CONFIG, canary_s=60.0, hang_s=60.0)) as own:
        own.triton.idle, own.triton.live = False, False
        own.triton.hanging = set(MODELS)
        for model in MODELS:
            own.supervisor.on_stuck(model)
        await until(lambda: "kill" in own.triton.calls)
        own.triton.live = True
        own.triton.hanging.clear()
        await until(lambda: own.supervisor.models.up)
        assert own.triton.calls.count("kill") == 1
    assert [each.message for each in caplog.records].count("tritonserver does not answer: restarting it") == 1


async def test_a_server_that_goes_silent_during_a_load_is_restarted(owned: Watched) -> None:
    owned.triton.wedged = {"load value_dit"}
    break_model(owned, "value_dit")
    await until(lambda: "load value_dit" in owned.triton.calls)
    owned.triton.live = False
    await until(lambda: "kill" in owned.triton.calls)
    owned.triton.live = True
    owned.triton.wedged.clear()
    await until(lambda: owned.supervisor.models.up)


async def test_a_long_load_of_a_server_that_answers_goes_on(owned: Watched) -> None:
    owned.triton.wedged = {"load value_dit"}
    break_model(owned, "value_dit")
    await until(lambda: "load value_dit" in owned.triton.calls)
    await asyncio.sleep(2.0 * CONFIG.hang_s)
    assert "kill" not in owned.triton.calls


async def test_a_server_that_does_not_unload_a_model_is_restarted(owned: Watched) -> None:
    owned.triton.wedged = {"unload value_dit"}
    break_model(owned, "value_dit")
    await until(lambda: "kill" in owned.triton.calls)
    owned.triton.wedged.clear()
    await until(lambda: owned.supervisor.models.up)


async def test_a_model_that_waits_for_a_processor_is_not_reloaded_and_one_that_stands_still_is(owned: Watched) -> None:
    with starved() as process:
        owned.triton.computed_by = process
        await until(lambda: owned.supervisor.models.last_process("value_dit") == process)
        owned.triton.hanging.add("value_dit")
        await asyncio.sleep(2 * CONFIG.hang_s)
        assert owned.triton.calls == []
        stop(process)
        await until(lambda: "load value_dit" in owned.triton.calls)


async def test_a_server_that_waits_for_a_processor_is_not_killed_and_one_that_stands_still_is(owned: Watched) -> None:
    with starved() as process:
        owned.triton.served_by, owned.triton.silent = process, True
        owned.supervisor.on_stuck("value_dit")
        await asyncio.sleep(2 * CONFIG.hang_s)
        assert "kill" not in owned.triton.calls
        stop(process)
        await until(lambda: "kill" in owned.triton.calls)
        owned.triton.silent = False
