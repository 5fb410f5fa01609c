"""What is told of the models of an endpoint: which are up, in which process, and the memory they report."""

from __future__ import annotations

from dataclasses import replace

from tests.backends.triton.supervised import CONFIG, FakeTriton
from wavserve.app import endpoint_state
from wavserve.backends.triton.client import About
from wavserve.backends.triton.health import Supervisor
from wavserve.core.errors import SettingsError
from wavserve.core.verbs import ARENA_OWNER, MODELS
from wavserve.planning.device import ModelState


def test_models_are_told_as_they_last_reported() -> None:
    supervisor = Supervisor("gpu-0", FakeTriton(), CONFIG)  # type: ignore[arg-type]  # a fake
    assert endpoint_state.models(supervisor) == tuple(ModelState(model, up=False) for model in MODELS)
    about = About(ARENA_OWNER, "d" * 64, "cuda", "float32", (41, 7), {}, {"used": 3, "slots": 8}, memory={"x": 5.0})
    supervisor.models.record(about)
    supervisor.models.refuse("encoder", SettingsError("another version"))
    told = {each.model: each for each in endpoint_state.models(supervisor)}
    assert told[ARENA_OWNER] == ModelState(ARENA_OWNER, True, 41, "cuda", "", {"x": 5.0}, (3, 8))
    assert (told["encoder"].up, told["encoder"].refusal) == (False, "another version")
    supervisor.models.mark_down(ARENA_OWNER)
    assert endpoint_state.models(supervisor)[MODELS.index(ARENA_OWNER)] == replace(told[ARENA_OWNER], up=False)
