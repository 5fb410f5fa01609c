"""Rendezvous hashing (highest random weight): everybody who knows a key and the nodes ranks the nodes alike.

When a node leaves, only the keys that had it first get another first node, and the order of the others stays. Knows
neither what a node is nor whether it works.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def ranked(key: str, nodes: Sequence[str]) -> tuple[str, ...]:
    """The nodes, from the most to the least preferred one of this key. Their order does not matter; one named twice
    is in the result once."""
    return tuple(sorted(set(nodes), key=lambda node: (_weight(key, node), node), reverse=True))


def _weight(key: str, node: str) -> bytes:
    """The same in every process, version and machine; `hash` is not."""
    text = key.encode()
    return hashlib.blake2b(len(text).to_bytes(8, "big") + text + node.encode(), digest_size=8).digest()
