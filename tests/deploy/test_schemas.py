"""Every object is valid by Kubernetes' own schemas, in which unknown fields are errors, or by those of the operator."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest

from tests.deploy.overlays import Object, Overlay

SCHEMAS = {path.stem: json.loads(path.read_text()) for path in (Path(__file__).parent / "schemas").iterdir()}
OLDEST = "1.30"
"""The oldest Kubernetes that docs/kubernetes.md allows."""
VERSIONS = (OLDEST, kubernetes_validate.latest_version())


def check(each: Object, version: str) -> None:
    """Raises ValidationError, or SchemaNotFoundError for a kind that nobody knows."""
    if (schema := SCHEMAS.get(each["kind"])) is not None:
        jsonschema.Draft202012Validator(schema).validate(each)
        return
    kubernetes_validate.validate(each, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid(overlay: Overlay, version: str) -> None:
    for each in overlay.objects:
        check(each, version)


def test_a_misspelt_field_is_found(overlay: Overlay) -> None:
    for kind, spelt in (("Deployment", "strategy"), ("ServiceMonitor", "endpoints")):
        for each in deepcopy(overlay.of(kind)):
            each["spec"][spelt + "s"] = each["spec"].pop(spelt)
            with pytest.raises(jsonschema.ValidationError):
                check(each, OLDEST)


def test_names_occur_once(overlay: Overlay) -> None:
    names = [(each["kind"], each["metadata"]["name"]) for each in overlay.objects]
    assert len(set(names)) == len(names)
