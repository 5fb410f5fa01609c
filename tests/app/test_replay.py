"""A record against a service it was not made on."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from wavserve.app.replay import _replay
from wavserve.core.errors import BundleError


@pytest.mark.parametrize(
    ("digest", "dtype", "words"),
    [
        ("another", "float32", "was made with policy another, this bundle is served"),
        ("served", "bfloat16", "was made in bfloat16, the models here compute in float32"),
    ],
)
def test_a_record_of_other_models_is_refused(digest: str, dtype: str, words: str) -> None:
    service: Any = SimpleNamespace(policy=SimpleNamespace(digest="served"), fleet=SimpleNamespace(dtype="float32"))
    record: Any = SimpleNamespace(policy_digest=digest, dtype=dtype)
    with pytest.raises(BundleError, match=words):
        asyncio.run(_replay(record, service))
