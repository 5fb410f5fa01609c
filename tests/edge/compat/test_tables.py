"""A table of camera names fits the policy, or it is left out, or it stops the start."""

from __future__ import annotations

import pytest

from tests.edge.fakes import CHUNK, example_spec
from wavserve.core.errors import SettingsError
from wavserve.edge.compat.tables import CompatConfig, Dialect, tables_for

SPEC = example_spec()  # cameras agentview and wrist
GOOD = ("a=agentview", "b=wrist", "c=none")


def test_a_table_names_each_camera_once() -> None:
    assert tables_for({"aloha": GOOD}, (), SPEC) == {"aloha": {"a": "agentview", "b": "wrist", "c": "none"}}


def test_a_name_may_have_an_equals_sign() -> None:
    assert tables_for({"aloha": ("a=b=agentview", "b=wrist")}, (), SPEC)["aloha"]["a=b"] == "agentview"


BAD = {
    "an unknown camera": (("a=top", "b=wrist"), "expected cameras of the policy (agentview, wrist) or none, got 'top'"),
    "a camera twice": (("a=wrist", "b=wrist", "c=agentview"), "expected one name of the camera wrist, got 2"),
    "a camera missing": (("a=agentview",), "expected a name of the camera wrist, got none"),
}


@pytest.mark.parametrize(("entries", "reason"), BAD.values(), ids=BAD)
def test_a_table_that_does_not_fit(entries: tuple[str, ...], reason: str) -> None:
    assert tables_for({"aloha": entries, "libero": GOOD}, (), SPEC).keys() == {"libero"}
    with pytest.raises(SettingsError) as refused:
        tables_for({"aloha": entries}, {"aloha"}, SPEC)
    assert refused.value.message == f"compat.aloha: {reason}"


MISNAMED: dict[str, tuple[Dialect, tuple[str, ...], str]] = {
    "a name twice": ("aloha", ("a=agentview", "a=none", "b=wrist"), "expected the name 'a' once, got 2"),
    "the state": ("libero", (*GOOD, "observation/state=none"), "expected names of images, got 'observation/state'"),
    "the prompt": ("droid", ("a=agentview", "prompt=wrist"), "expected names of images, got 'prompt'"),
    "views without a number": ("wav", GOOD, "expected the names 0, 1, 2, got 'a, b, c'"),
    "a view left out": ("wav", ("0=agentview", "2=wrist"), "expected the names 0, 1, got '0, 2'"),
    "other parts": ("predict", GOOD, "expected the names front_head, left_hand, right_hand, got 'a, b, c'"),
}


@pytest.mark.parametrize(("dialect", "entries", "reason"), MISNAMED.values(), ids=MISNAMED)
def test_a_table_of_names_that_no_client_sends(dialect: Dialect, entries: tuple[str, ...], reason: str) -> None:
    assert tables_for({dialect: entries}, (), SPEC) == {}
    with pytest.raises(SettingsError) as refused:
        tables_for({dialect: entries}, {dialect}, SPEC)
    assert refused.value.message == f"compat.{dialect}: {reason}"


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (CompatConfig(CHUNK + 1), "compat.executed_steps: expected at most 16, the policy's horizon, got 17"),
        (CompatConfig(1, instruction=" "), "compat.instruction: expected text that is not blank"),
        (CompatConfig(1, instruction="x" * 65), "compat.instruction: expected at most 64 bytes"),
    ],
    ids=["more steps than the horizon", "a blank instruction", "a long instruction"],
)
def test_settings_that_no_request_could_meet(config: CompatConfig, reason: str) -> None:
    CompatConfig(CHUNK, instruction="fold the shirt").check(SPEC)
    with pytest.raises(SettingsError) as refused:
        config.check(SPEC)
    assert refused.value.message.startswith(reason)


def test_an_empty_table_turns_a_dialect_off() -> None:
    assert tables_for({"aloha": ()}, {"aloha"}, SPEC) == {}
