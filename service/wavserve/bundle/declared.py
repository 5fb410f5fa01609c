"""What a `policy.json` of format 2 must declare for motion, even where it declares nothing.

A missing declaration is an error, because a robot would take it for a promise. Knows the document before it is parsed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from wavserve.bundle.checks import entry_error

_OPTIONAL = "action.hold"
"""The first bundles of format 2 do not have it: their commands are positions."""


def check_declared(document: dict[str, Any], stated_format: int) -> None:
    """Raises BundleError for a declaration that is missing in format 2 or that format 1 does not have."""
    for path, entry, key in _places(document):
        if stated_format == 1 and key in entry:
            raise entry_error(path, "no such key in format 1", "one")
        if stated_format != 1 and key not in entry and path != _OPTIONAL:
            raise entry_error(path, f"a value in format {stated_format}", "nothing")


def _places(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Path, object and key of each declaration. What is no object is left to the parser."""
    for key in ("embodiment", "rtc", "max_trained_delay"):
        yield key, document, key
    if isinstance(action := document.get("action"), dict):
        yield "action.limits", action, "limits"
        yield _OPTIONAL, action, "hold"
    cameras = document.get("cameras")
    for i, camera in enumerate(cameras if isinstance(cameras, list) else []):
        if isinstance(camera, dict):
            yield f"cameras[{i}].orientation", camera, "orientation"
