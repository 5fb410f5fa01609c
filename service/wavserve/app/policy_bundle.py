"""Finds the policy bundle that the settings name. A preset is created when its folder does not exist."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from pathlib import Path

from wavserve.app.environment import cache_folder
from wavserve.app.settings import BundleSettings
from wavserve.bundle import bundle
from wavserve.bundle.bundle import Bundle
from wavserve.core.errors import BundleError, SettingsError

log = logging.getLogger(__name__)

Create = Callable[[str, Path, int], object]
"""Creates a preset, by name, at a folder, with a seed. Raises BundleError when the folder exists, and OSError."""

_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


def open_bundle(settings: BundleSettings) -> Bundle:
    """Loads the bundle. Raises SettingsError when a preset cannot be created, BundleError for an unusable bundle."""
    if settings.path is None and settings.preset == "auto" and settings.shipped is None:
        log.warning(
            "%s has no trained policy: serving %s, which has random weights", settings.policies, settings.created
        )
    if settings.path is not None or settings.folder.exists():
        return bundle.load(settings.folder)
    from wavserve.models.weights import presets

    return bundle.load(preset_folder(settings, presets.create, cache_folder()))


def preset_folder(settings: BundleSettings, create: Create, cache: Path) -> Path:
    """Where the preset is, created if need be. Without `bundle.root` a read-only folder is replaced by one in `cache`.

    Raises SettingsError when neither can be written.
    """
    try:
        return _created(settings, settings.folder, create)
    except OSError as error:
        if settings.root is not None or error.errno not in _READ_ONLY:
            raise SettingsError(f"bundle.root: cannot create {settings.folder}: {error}") from error
    folder = cache / settings.folder
    log.info("%s is read-only: the bundle is in %s", settings.folder.parent, folder)
    try:
        return _created(settings, folder, create)
    except OSError as error:
        raise SettingsError(f"bundle.root: cannot create {settings.folder} or {folder}: {error}") from error


def _created(settings: BundleSettings, folder: Path, create: Create) -> Path:
    if folder.exists():
        return folder
    log.info("creating bundle %s (preset %s, seeded random weights)", folder, settings.created)
    try:
        create(settings.created, folder, settings.seed)
    except BundleError:
        if not folder.exists():  # else another service has created it meanwhile
            raise
    return folder
