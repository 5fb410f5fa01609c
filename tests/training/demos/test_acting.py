"""A trained bundle that acts in demonstrations: it plans as serving does, and a bundle that does not fit is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training.fake_scene import SUITE, FakeScene
from tests.training.test_dataset import contents
from wavserve.app.service import assemble
from wavserve.app.settings import Settings
from wavserve.cli import main
from wavserve.core.errors import BundleError, InvalidRequest
from wavserve.core.spec import CameraSpec, PolicySpec
from wavserve.core.types import PlanRequest
from wavserve.models.weights import presets
from wavserve.training.dataset import open_dataset
from wavserve.training.demos.acting import acting_policy
from wavserve.training.demos.generation import Generation
from wavserve.training.demos.protocol import RecordingConfig, Takeover
from wavserve.training.demos.request import Request
from wavserve.training.episode import Episode

SIZE = 128


def trained(spec: PolicySpec) -> PolicySpec:
    """Declared as trained, and with the one memory frame of a policy that is."""
    return replace(spec, untrained=False, latent=replace(spec.latent, num_memory_frames=1))


def bundle_of(folder: Path, change: Callable[[PolicySpec], PolicySpec] = trained) -> Path:
    """The weights of the preset `tiny` under another declaration."""
    preset = presets.find("tiny")
    presets.make(replace(preset, spec=change(preset.spec)), folder, with_golden=False)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundle_of(tmp_path_factory.mktemp("bundles") / "acting")


async def test_a_policy_that_acts_plans_as_the_service_does(folder: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = [{camera: rng.integers(0, 255, (SIZE, SIZE, 3), np.uint8) for camera in ("agentview", "wrist")}] * 2
    states = [rng.uniform(-0.1, 0.1, 8).astype(np.float32) for _ in pictures]
    policy = acting_policy(folder, SIZE, 4)()
    policy.begin("pick up the milk", seed=7)
    acted = [policy.plan(seen, state) for seen, state in zip(pictures, states, strict=True)]
    backend = {"kind": "local", "dtype": "float32", "compile": "off"}
    facts: dict[str, Any] = {"bundle": {"path": str(folder)}, "backend": backend}
    service = await assemble(Settings.model_validate(facts))
    try:
        await service.policy.warm_up()
        session_id = None
        for sequence, (seen, state) in enumerate(zip(pictures, states, strict=True)):
            request = PlanRequest(
                instruction="pick up the milk", session_id=session_id, sequence=sequence, executed_steps=4 * sequence,
                control_step=4 * sequence, options={"mode": "off"}, seed=7, images=seen, state=state,
            )  # fmt: skip
            chunk = await service.policy.plan(request)
            session_id = chunk.session_id
            np.testing.assert_allclose(acted[sequence], chunk.actions, rtol=0, atol=1e-4)
    finally:
        await service.policy.drain(0.0)
        await service.close()
    assert not np.allclose(acted[0], acted[1])


def request_of(name: str, num_episodes: int = 3) -> Request:
    config = RecordingConfig(size=SIZE, max_steps=40, takeover=Takeover(alone=0.5, early=1.0, early_steps=(8, 16)))
    return Request(SUITE, (), num_episodes, seed=0, antialiasing=True, config=config, policy=name)


class Ended(Exception):
    pass


def generated(folder: Path, out: Path, num_workers: int = 1, ends_after: int | None = None) -> dict[str, bytes]:
    def listener(_: Episode | None, num_done: int, total: int) -> None:
        if num_done == ends_after:
            raise Ended

    acting = acting_policy(folder, SIZE, 4)
    Generation(request_of(acting.name), lambda: FakeScene(SIZE), num_workers, acting).run(out, listener)
    return contents(out)


def test_an_interruption_and_more_simulators_change_nothing(folder: Path, tmp_path: Path) -> None:
    whole = generated(folder, tmp_path / "whole")
    with pytest.raises(Ended):
        generated(folder, tmp_path / "early", ends_after=2)
    assert generated(folder, tmp_path / "early", num_workers=2) == whole
    dataset = open_dataset(tmp_path / "whole")
    assert str(dataset.recipe.settings["policy"]).startswith("tiny ")
    assert dataset.recipe.settings["recording.takeover.alone"] == 0.5
    by_policy = [~episode.is_expert for episode in dataset.episodes(pictures=False)]
    assert all(rows[:8].all() for rows in by_policy), "the policy acts first"
    assert {bool(rows.all()) for rows in by_policy} == {True, False}, "some alone, some with an expert at their end"


def test_another_policy_needs_another_folder(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(Ended):
        generated(folder, tmp_path / "set", ends_after=1)
    other = bundle_of(tmp_path / "other", lambda spec: replace(trained(spec), name="other"))
    with pytest.raises(InvalidRequest, match=r"--out: expected settings\.policy = tiny [0-9a-f]{16}.*got other"):
        generated(other, tmp_path / "set")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda spec: spec, "a policy with trained weights, got random weights"),
        (lambda spec: replace(spec, untrained=False), "memory frames 1, got 4"),
        (lambda spec: replace(trained(spec), control_hz=10.0), "control rate 20.0, got 10.0"),
        (
            lambda spec: replace(trained(spec), embodiment="libero"),
            "pictures of agentview rotated_180, got as_captured",
        ),
        (
            lambda spec: replace(trained(spec), cameras=(CameraSpec("top", 128, 128), spec.cameras[1])),
            "cameras agentview, wrist, got top, wrist",
        ),
    ],
)
def test_a_bundle_that_does_not_fit_is_refused(
    change: Callable[[PolicySpec], PolicySpec], message: str, tmp_path: Path
) -> None:
    made = bundle_of(tmp_path / "bundle", change)
    with pytest.raises(InvalidRequest) as refusal:
        acting_policy(made, SIZE, 4)
    assert refusal.value.message == f"--policy: expected {message}"


def test_pictures_of_another_size_and_too_short_plans_are_refused(folder: Path) -> None:
    with pytest.raises(InvalidRequest, match="--policy: expected pictures of agentview of 64 x 64, got 128 x 128"):
        acting_policy(folder, 64, 4)
    with pytest.raises(InvalidRequest, match="--policy: expected at least 20 actions a plan, got 16"):
        acting_policy(folder, SIZE, 20)
    with pytest.raises(BundleError, match=r"none: expected the folder of a policy bundle"):
        acting_policy(Path("none"), SIZE, 4)


@pytest.mark.parametrize("option", ["--alone", "--early"])
def test_shares_need_a_policy(option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["train", "demos", "--suite", "libero_object", "--out", str(tmp_path / "new"), option]
    assert main([*line, "0.5"]) == 1
    assert f"{option}: expected --policy beside it, got none" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*line, "1.5"])
    assert f"argument {option}: invalid share value: '1.5'" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
