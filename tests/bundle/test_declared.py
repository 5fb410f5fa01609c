"""`policy.json`: format 1 still loads, format 2 declares everything for motion, and wrong declarations are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from wavserve.bundle import bundle
from wavserve.bundle.bundle import Bundle
from wavserve.bundle.checks import check_spec
from wavserve.core.errors import BundleError
from wavserve.core.spec import LimitsSpec, NormSpec, RtcSpec
from wavserve.models.weights.preset_specs import PRESETS

DECLARED = ("embodiment", "rtc", "max_trained_delay")


def as_format_1(document: dict[str, Any]) -> dict[str, Any]:
    """The document as it was before anything was declared for motion."""
    old = json.loads(json.dumps(document))
    for key in DECLARED:
        del old[key]
    del old["action"]["limits"], old["action"]["hold"]
    for camera in old["cameras"]:
        del camera["orientation"]
    return {**old, "format": 1}


def test_format_1_loads_and_declares_nothing(tiny_piper: Bundle) -> None:
    spec = bundle.parse(as_format_1(bundle.document(tiny_piper.spec)))
    action = replace(tiny_piper.spec.action, limits=LimitsSpec())
    assert spec == replace(tiny_piper.spec, embodiment="", action=action)


def test_a_folder_that_is_no_bundle_is_named(tmp_path: Path) -> None:
    (file := tmp_path / "file").touch()
    for folder, found in (
        (tmp_path, "a folder without policy.json"),
        (file, "a file"),
        (tmp_path / "none", "nothing there"),
    ):
        with pytest.raises(BundleError, match=rf"^{folder}: expected the folder of a policy bundle, got {found}$"):
            bundle.load_spec(folder)


def test_format_1_with_a_short_chunk_loads(tiny: Bundle) -> None:
    document = as_format_1(bundle.document(tiny.spec)) | {"chunk": 4}
    assert bundle.parse(document).rtc == RtcSpec(execution_horizon=4)


def test_a_document_survives(tiny_piper: Bundle) -> None:
    limits = replace(tiny_piper.spec.action.limits, jerk=(None, *(5.0,) * 13))
    spec = replace(
        tiny_piper.spec,
        action=replace(tiny_piper.spec.action, limits=limits),
        cameras=tuple(replace(camera, orientation="rotated_180") for camera in tiny_piper.spec.cameras),
        rtc=RtcSpec("rtc_trained", "EXP", 2.0, 7),
        max_trained_delay=5,
        value_norm=NormSpec("meanstd", (0.2, 0.4), (0.1, 0.3)),
    )
    document = bundle.document(spec)
    assert document["format"] == 2
    assert bundle.parse(json.loads(json.dumps(document))) == spec


@pytest.mark.parametrize(
    ("path", "change"),
    [
        *((key, lambda d, key=key: d.pop(key)) for key in DECLARED),
        ("action.limits", lambda d: d["action"].pop("limits")),
        (r"cameras\[1\].orientation", lambda d: d["cameras"][1].pop("orientation")),
    ],
)
def test_format_2_must_declare_everything(path: str, change: Callable[[dict[str, Any]], object], tiny: Bundle) -> None:
    document = bundle.document(tiny.spec)
    change(document)
    with pytest.raises(BundleError, match=rf"{path}: expected a value in format 2, got nothing"):
        bundle.parse(document)


def test_a_declaration_in_format_1_is_refused(tiny: Bundle) -> None:
    document = as_format_1(bundle.document(tiny.spec)) | {"embodiment": "piper_dual"}
    with pytest.raises(BundleError, match="embodiment: expected no such key in format 1"):
        bundle.parse(document)


def test_a_bundle_of_before_hold_was_declared_loads_as_it_was(tiny_piper: Bundle) -> None:
    document = bundle.document(tiny_piper.spec)
    del document["action"]["hold"]
    assert bundle.parse(document).action.hold == ()


def test_a_hold_in_format_1_is_refused(tiny: Bundle) -> None:
    old = as_format_1(bundle.document(tiny.spec))
    old["action"]["hold"] = []
    with pytest.raises(BundleError, match=r"action.hold: expected no such key in format 1"):
        bundle.parse(old)


def test_the_presets_with_offsets_say_so(tiny: Bundle) -> None:
    hold = (*("zero",) * 6, "last")
    assert tiny.spec.action.hold == PRESETS["libero"]().spec.action.hold == hold
    assert bundle.parse(bundle.document(tiny.spec)).action.hold == hold


@pytest.mark.parametrize(
    ("hold", "words"),
    [
        (("zero",), "action.hold: expected no entry, or 14, one per name, got 1"),
        ((*("last",) * 13, "stay"), r"action.hold\[13\]: expected last or zero, got 'stay'"),
    ],
)
def test_a_wrong_hold_is_refused(hold: tuple[Any, ...], words: str, tiny_piper: Bundle) -> None:
    with pytest.raises(BundleError, match=words):
        check_spec(replace(tiny_piper.spec, action=replace(tiny_piper.spec.action, hold=hold)))


@pytest.mark.parametrize("stated", [0, 3, "2", True, 2.0, None])
def test_another_format_is_refused(stated: object, tiny: Bundle) -> None:
    with pytest.raises(BundleError, match="format: expected 1 or 2, got"):
        bundle.parse(bundle.document(tiny.spec) | {"format": stated})


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"position": (None,)}, "position: expected no entry, or 14, one per name, got 1"),
        ({"position": ((1.0, 1.0), *(None,) * 13)}, r"position\[0\]: expected two finite numbers, the lower first"),
        ({"position": (None, (0.0, float("inf")), *(None,) * 12)}, r"position\[1\]"),
        ({"position": (None, (float("nan"), 1.0), *(None,) * 12)}, r"position\[1\]"),
        ({"velocity": (1.0,) * 13}, "velocity: expected no entry, or 14, one per name, got 13"),
        ({"velocity": (0.0, *(None,) * 13)}, r"velocity\[0\]: expected a finite number above 0, got 0.0"),
        ({"jerk": (*(None,) * 13, float("nan"))}, r"jerk\[13\]: expected a finite number above 0, got nan"),
        ({"min_horizon": 0}, "min_horizon: expected 1 to 54, got 0"),
        ({"min_horizon": 55}, "min_horizon: expected 1 to 54, got 55"),
    ],
)
def test_wrong_limits_are_refused(limits: dict[str, Any], words: str, tiny_piper: Bundle) -> None:
    action = replace(tiny_piper.spec.action, limits=LimitsSpec(**limits))
    with pytest.raises(BundleError, match=rf"policy.json: action.limits.{words}"):
        check_spec(replace(tiny_piper.spec, action=action))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rtc": RtcSpec(execution_horizon=0)}, "rtc.execution_horizon: expected 1 to 54, got 0"),
        ({"rtc": RtcSpec(execution_horizon=55)}, "rtc.execution_horizon: expected 1 to 54, got 55"),
        ({"rtc": RtcSpec(max_guidance_weight=0.0)}, "rtc.max_guidance_weight: expected a finite number above 0"),
        ({"rtc": RtcSpec(max_guidance_weight=1001.0)}, "rtc.max_guidance_weight: expected 0 to 1000, got 1001"),
        ({"control_hz": 1e-300}, "control_hz: expected 0.001 to 100000, got 1e-300"),
        ({"control_hz": 1e300}, "control_hz: expected 0.001 to 100000, got 1e.300"),
        ({"rtc": RtcSpec(max_guidance_weight=float("inf"))}, "rtc.max_guidance_weight: expected a finite number"),
        ({"max_trained_delay": -1}, "max_trained_delay: expected 0 to 53, got -1"),
        ({"max_trained_delay": 54}, "max_trained_delay: expected 0 to 53, got 54"),
        ({"rtc": RtcSpec("rtc_trained")}, "rtc.mode: expected another mode while max_trained_delay is 0"),
        ({"value_norm": NormSpec("minmax", (0.0, 0.0), (1.0, 1.0))}, "value_norm.kind: expected meanstd, got 'minmax'"),
        ({"value_norm": NormSpec("meanstd", (0.0,), (1.0,))}, r"value_norm.low: expected 2 entries"),
        ({"value_norm": NormSpec("meanstd", (0.0, 0.0), (1.0, -1.0))}, r"value_norm.high\[1\]: expected at least 0.0"),
        (
            {"value_norm": NormSpec("meanstd", (0.0, float("nan")), (1.0, 1.0))},
            r"value_norm.low\[1\]: expected a finite",
        ),
    ],
)
def test_wrong_declarations_are_refused(changes: dict[str, Any], words: str, tiny_piper: Bundle) -> None:
    with pytest.raises(BundleError, match=f"policy.json: {words}"):
        check_spec(replace(tiny_piper.spec, **changes))


def test_limits_load_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "limits.json"
    path.write_text('{"position": [[0, 1.5], null], "velocity": [3.0, null], "min_horizon": 4}')
    assert bundle.load_limits(path) == LimitsSpec(((0.0, 1.5), None), (3.0, None), (), 4)
    path.write_text('{"position": [[0], null], "speed": []}')
    with pytest.raises(BundleError, match=r"limits.json: .*speed: expected no such key"):
        bundle.load_limits(path)
