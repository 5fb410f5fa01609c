"""Rendezvous hashing (highest random weight): everybody who knows a key and the nodes ranks the nodes alike.

When a node leaves, only the keys that had it first get another first node, and the order of the others stays. Where
all keys are known too, `share` deals the nodes evenly, which few keys do not get by chance. Knows neither what a node
is nor whether it works.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from itertools import product


def ranked(key: str, nodes: Sequence[str]) -> tuple[str, ...]:
    """The nodes, from the most to the least preferred one of this key. Their order does not matter; one named twice
    is in the result once."""
    return tuple(sorted(set(nodes), key=lambda node: (_weight(key, node), node), reverse=True))


def share(key: str, keys: Collection[str], nodes: Collection[str]) -> tuple[str, ...]:
    """The nodes that fall to a key when the keys divide the nodes among them, from the most to the least preferred one.

    Each node falls to one key, and no key gets two more than another. With fewer nodes than keys each key gets one
    node, and no node two more keys than another. Everybody who knows the same keys and nodes finds the same.
    """
    everyone = {key, *keys}
    pairs = sorted(product(everyone, set(nodes)), key=lambda pair: (_weight(*pair), pair), reverse=True)
    if len(set(nodes)) >= len(everyone):
        mine = {node for node, holder in _dealt(pairs).items() if holder == key}
    else:
        mine = {_dealt([(node, each) for each, node in pairs])[key]} if nodes else set()
    return ranked(key, tuple(mine))


def _dealt(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    """The holder of each item. `pairs` of holder and item, best first. In each round every holder takes one item."""
    holder_of: dict[str, str] = {}
    left = {item for _, item in pairs}
    while left:
        waiting = {holder for holder, _ in pairs}
        for holder, item in pairs:
            if holder in waiting and item in left:
                holder_of[item] = holder
                waiting.remove(holder)
                left.remove(item)
    return holder_of


def _weight(key: str, node: str) -> bytes:
    """The same in every process, version and machine; `hash` is not."""
    text = key.encode()
    return hashlib.blake2b(len(text).to_bytes(8, "big") + text + node.encode(), digest_size=8).digest()
