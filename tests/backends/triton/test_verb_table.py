"""Models of another version, whose verb table differs from the gateway's: refused at the start, marked down later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

import pytest

from tests.backends.rig import TIMEOUT_S, RunningTriton
from tests.backends.triton.supervised import CONFIG, FakeTriton, until, watched
from wavserve.backends.triton.client import About
from wavserve.backends.triton.health import Supervisor
from wavserve.core.errors import SettingsError
from wavserve.core.verbs import MODELS, fingerprints

CHANGED = "0123456789ab"
OWN = fingerprints("value_dit")
OTHER_TABLES = {
    "a verb changed": {**OWN, "score": CHANGED},
    "a verb is missing": {"score": OWN["score"]},
    "a verb is new": {**OWN, "appraise": CHANGED},
    "no verbs, as before the field": {},
}


def about(model: str, verbs: Mapping[str, str]) -> About:
    return About(model, "d" * 64, "cpu", "float32", (1, 1), {}, None, dict(verbs))


def listed(verbs: Mapping[str, str]) -> str:
    return ", ".join(f"{verb} {fingerprint}" for verb, fingerprint in verbs.items())


@pytest.mark.parametrize("model", MODELS)
def test_equal_verb_tables_pass(model: str) -> None:
    about(model, fingerprints(model)).check_verbs("here")
    about(model, dict(reversed(fingerprints(model).items()))).check_verbs("here")


@pytest.mark.parametrize("verbs", OTHER_TABLES.values(), ids=OTHER_TABLES.keys())
def test_a_refusal_names_endpoint_model_and_both_tables(verbs: Mapping[str, str]) -> None:
    with pytest.raises(SettingsError) as refused:
        about("value_dit", verbs).check_verbs("here")
    theirs = listed(verbs) or "of an older version"
    tables = f"value_dit has the verbs {theirs}, this gateway {listed(OWN)}"
    assert refused.value.message == f"triton: here: {tables}: run the same version of wavserve on both"


def test_a_description_without_verbs_is_one_of_an_older_version() -> None:
    older = About("value_dit", "d" * 64, "cpu", "float32", (1, 1), {}, None)
    with pytest.raises(SettingsError, match="value_dit has the verbs of an older version"):
        older.check_verbs("here")


@pytest.mark.parametrize("is_owned", [True, False])
@pytest.mark.parametrize("verbs", OTHER_TABLES.values(), ids=OTHER_TABLES.keys())
async def test_a_start_with_another_verb_table_fails(is_owned: bool, verbs: Mapping[str, str]) -> None:
    triton = FakeTriton()
    triton.loaded = dict.fromkeys(MODELS, not is_owned)
    triton.verbs = {"value_dit": verbs}
    supervisor = Supervisor("here", triton, CONFIG, triton if is_owned else None)  # type: ignore[arg-type]
    with pytest.raises(SettingsError) as refused:
        await supervisor.start()
    await supervisor.close()
    assert (listed(verbs) or "of an older version") in refused.value.message
    assert listed(OWN) in refused.value.message
    assert not supervisor.models.up


@pytest.mark.parametrize("is_owned", [True, False])
@pytest.mark.parametrize("verbs", OTHER_TABLES.values(), ids=OTHER_TABLES.keys())
async def test_a_model_that_changes_its_verb_table_is_marked_down_and_logged_once(
    is_owned: bool, verbs: Mapping[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    async with watched(is_owned=is_owned) as endpoint:
        endpoint.triton.verbs = {"value_dit": verbs}
        await until(lambda: ("value_dit", False) in endpoint.changes)
        asked = endpoint.triton.num_described["value_dit"]
        await until(lambda: endpoint.triton.num_described["value_dit"] >= asked + 4)
        assert not endpoint.supervisor.models.up
        assert ("value_dit", True) not in endpoint.changes
        refusals = [record for record in caplog.records if "value_dit has the verbs" in record.getMessage()]
        assert [record.levelname for record in refusals] == ["ERROR"]
        assert listed(OWN) in refusals[0].getMessage()
        assert endpoint.triton.calls == [], "a reload brings back the same version"
        endpoint.triton.verbs = {}
        await until(lambda: endpoint.supervisor.models.up)


def test_a_newer_versions_facts_do_not_hide_that_it_is_another_version() -> None:
    reported = {**asdict(about("value_dit", {**OWN, "score": CHANGED})), "new_in_the_next_version": 1}
    with pytest.raises(SettingsError, match="score 0123456789ab"):
        About.read(reported).check_verbs("here")


async def test_a_refused_model_that_then_fails_is_repaired() -> None:
    async with watched(is_owned=True) as endpoint:
        endpoint.triton.verbs = {"value_dit": {}}
        await until(lambda: ("value_dit", False) in endpoint.changes)
        endpoint.triton.verbs = {}
        endpoint.triton.loaded["value_dit"] = False
        await until(lambda: endpoint.supervisor.models.up)
        assert "load value_dit" in endpoint.triton.calls


async def test_hosted_models_report_the_gateways_verb_table(running_triton: RunningTriton) -> None:
    for model in MODELS:
        reported = await running_triton.backend.describe(model, TIMEOUT_S)
        assert reported.verbs == fingerprints(model)
