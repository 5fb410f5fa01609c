"""Digests of a request's inputs: the same whether the edge or the policy hashes an image."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np

from wavserve.core.types import PlanRequest
from wavserve.policy.digests import image_digest, input_digests

IMAGE = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
REQUEST = PlanRequest(images={"top": IMAGE}, state=np.zeros(2, np.float32), instruction="go")


def test_an_image_is_hashed_row_by_row() -> None:
    assert image_digest(IMAGE[:, ::2]) == hashlib.sha256(IMAGE[:, ::2].tobytes()).hexdigest()


def test_an_image_that_was_hashed_is_not_hashed_again() -> None:
    assert input_digests(REQUEST)["images.top"] == hashlib.sha256(IMAGE.tobytes()).hexdigest()
    assert input_digests(replace(REQUEST, image_digests={"top": "d" * 64}))["images.top"] == "d" * 64
    assert input_digests(replace(REQUEST, image_digests={"top": image_digest(IMAGE)})) == input_digests(REQUEST)
