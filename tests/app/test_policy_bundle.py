"""A preset's bundle is found, or created where it can be written."""

from __future__ import annotations

import errno
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from wavserve.app.policy_bundle import open_bundle, preset_folder
from wavserve.app.settings import BundleSettings
from wavserve.bundle.bundle import Bundle
from wavserve.core.errors import BundleError, SettingsError


@pytest.fixture(autouse=True)
def working_directory(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty one: a checkout may already have its preset."""
    monkeypatch.chdir(tmp_path_factory.mktemp("work"))


def creator(read_only: Callable[[Path], bool] = lambda folder: False) -> Callable[[str, Path, int], None]:
    def create(preset: str, folder: Path, seed: int) -> None:
        if read_only(folder):
            raise OSError(errno.EROFS, "Read-only file system")
        folder.mkdir(parents=True)
        (folder / "policy.json").write_text(f"{preset} {seed}")

    return create


def test_a_preset_is_created_once(tmp_path: Path) -> None:
    settings = BundleSettings(root=tmp_path / "bundles", seed=7)
    assert preset_folder(settings, creator(), tmp_path / "cache") == tmp_path / "bundles" / "tiny"
    assert (tmp_path / "bundles" / "tiny" / "policy.json").read_text() == "tiny 7"
    assert preset_folder(settings, creator(lambda folder: True), tmp_path / "cache") == tmp_path / "bundles" / "tiny"


def test_a_read_only_working_directory_has_its_presets_in_the_cache(tmp_path: Path) -> None:
    create = creator(lambda folder: not folder.is_relative_to(tmp_path))
    assert preset_folder(BundleSettings(), create, tmp_path) == tmp_path / "bundles" / "tiny"


def test_a_root_that_was_given_is_not_replaced(tmp_path: Path) -> None:
    settings = BundleSettings(root=tmp_path / "bundles")
    with pytest.raises(SettingsError, match=r"bundle\.root: cannot create .*bundles/tiny: .*Read-only"):
        preset_folder(settings, creator(lambda folder: "cache" not in folder.parts), tmp_path / "cache")


def test_an_unwritable_cache_is_an_error_that_names_both_folders(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot create bundles/tiny or .*bundles/tiny: .*Read-only"):
        preset_folder(BundleSettings(), creator(lambda folder: True), tmp_path)


def test_two_services_may_create_a_preset_at_once(tmp_path: Path) -> None:
    def create(preset: str, folder: Path, seed: int) -> None:
        creator()(preset, folder, seed)
        raise BundleError(f"{folder}: expected no such folder yet, got one that appeared meanwhile")

    settings = BundleSettings(root=tmp_path)
    assert preset_folder(settings, create, tmp_path / "cache") == tmp_path / "tiny"


def test_a_preset_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    def create(preset: str, folder: Path, seed: int) -> None:
        raise BundleError("no such preset")

    with pytest.raises(BundleError, match="no such preset"):
        preset_folder(BundleSettings(root=tmp_path), create, tmp_path / "cache")


def shipped(tiny: Bundle, folder: Path) -> Path:
    """A folder of policies with a bundle where the trained one is looked for."""
    shutil.copytree(tiny.folder, folder / "tiny-libero")
    return folder


def test_the_trained_policy_is_the_default(tiny: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = BundleSettings(policies=shipped(tiny, tmp_path / "policies"), root=tmp_path / "bundles")
    assert open_bundle(settings).folder == tmp_path / "policies" / "tiny-libero"
    assert not (tmp_path / "bundles").exists()
    assert caplog.text == ""


def test_without_the_trained_policy_the_default_is_tiny_and_says_so(
    tiny: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "policies" / "tiny-libero").mkdir(parents=True)  # as before it is trained: it has a recipe only
    settings = BundleSettings(policies=tmp_path / "policies", root=tiny.folder.parent)
    with caplog.at_level(logging.INFO):
        assert open_bundle(settings).folder == tiny.folder
    assert "policies has no trained policy: serving tiny, which has random weights" in caplog.text


def test_a_preset_that_was_asked_for_is_not_replaced(tiny: Bundle, tmp_path: Path) -> None:
    policies = shipped(tiny, tmp_path / "policies")
    assert BundleSettings(policies=policies, preset="tiny", root=tiny.folder.parent).folder == tiny.folder
    assert BundleSettings(policies=policies, path=tmp_path / "mine").folder == tmp_path / "mine"


def test_a_trained_policy_that_is_broken_is_an_error(tiny: Bundle, tmp_path: Path) -> None:
    policies = shipped(tiny, tmp_path / "policies")
    (policies / "tiny-libero" / "vae" / "config.json").unlink()
    with pytest.raises(BundleError, match=r"config\.json"):
        open_bundle(BundleSettings(policies=policies))
