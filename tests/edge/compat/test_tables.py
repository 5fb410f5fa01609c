"""A table of camera names fits the policy, or it is left out, or it stops the start."""

from __future__ import annotations

import pytest

from tests.edge.fakes import example_spec
from wavserve.core.errors import SettingsError
from wavserve.edge.compat.tables import tables_for

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
    assert tables_for({"aloha": entries, "wav": GOOD}, (), SPEC).keys() == {"wav"}
    with pytest.raises(SettingsError) as refused:
        tables_for({"aloha": entries}, {"aloha"}, SPEC)
    assert refused.value.message == f"compat.aloha: {reason}"


def test_an_empty_table_turns_a_dialect_off() -> None:
    assert tables_for({"aloha": ()}, {"aloha"}, SPEC) == {}
