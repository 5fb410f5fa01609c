"""A preset's bundle is found, or created where it can be written."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from wavserve.app.policy_bundle import preset_folder
from wavserve.app.settings import BundleSettings
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
