"""A digest of an answer: equal answers have equal digests, however long they took and however they travelled."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict

import numpy as np

from wavserve.core.messages import ActionChunk

_FACTS = ("policy_digest", "version", "seed", "sequence", "iterations_done", "warm_start", "value_estimate")


def receipt_digest(chunk: ActionChunk) -> str:
    """sha256 (hex) of the actions, and of all that the receipt says besides times and deadlines."""
    receipt = chunk.receipt
    facts = {name: getattr(receipt, name) for name in _FACTS} | {
        "config": asdict(receipt.config),
        "stopped": receipt.stopped.value,
        "digests": dict(receipt.digests),
        "rtc": None if receipt.rtc is None else asdict(receipt.rtc),
    }
    content = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    content.update(np.ascontiguousarray(chunk.actions, "<f4").data)
    return content.hexdigest()
