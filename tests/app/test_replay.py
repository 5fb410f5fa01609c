"""Replaying a record on models other than those it was made with."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from wavserve.app.replay import replay_on
from wavserve.core.errors import BundleError


@pytest.mark.parametrize(
    ("digest", "dtype", "words"),
    [
        ("another", "float32", "was made with policy another, this bundle is served"),
        ("served", "bfloat16", "was made in bfloat16, the models here compute in float32"),
    ],
)
async def test_a_record_of_other_models_is_refused(digest: str, dtype: str, words: str) -> None:
    service: Any = SimpleNamespace(policy=SimpleNamespace(digest="served"), fleet=SimpleNamespace(dtype="float32"))
    record: Any = SimpleNamespace(policy_digest=digest, dtype=dtype)
    with pytest.raises(BundleError, match=words):
        await replay_on(service, record)
