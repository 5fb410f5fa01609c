"""Rendezvous hashing: equal everywhere, even shares, and little movement."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from wavserve.core.rendezvous import ranked, share

NODES = ["10.0.0.1:8001", "10.0.0.2:8001", "10.0.0.3:8001", "10.0.0.4:8001"]
GOLDEN = {
    "gateway-0": (NODES[2], NODES[1], NODES[0], NODES[3]),
    "gateway-1": (NODES[0], NODES[1], NODES[2], NODES[3]),
    "": (NODES[3], NODES[1], NODES[0], NODES[2]),
    "ロボット": (NODES[2], NODES[3], NODES[0], NODES[1]),
}

names = st.text(max_size=12)


def test_the_ranking_is_the_same_in_every_version() -> None:
    assert {key: ranked(key, NODES) for key in GOLDEN} == GOLDEN


def test_the_ranking_is_the_same_in_every_process() -> None:
    program = f"from wavserve.core.rendezvous import ranked; print(ranked('gateway-0', {NODES}))"
    told = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    ]
    assert told == [str(ranked("gateway-0", NODES))] * 2


@given(names, st.lists(names))
def test_every_node_is_ranked_once_whatever_their_order(key: str, nodes: list[str]) -> None:
    ranking = ranked(key, nodes)
    assert sorted(ranking) == sorted(set(nodes))
    assert ranked(key, nodes[::-1]) == ranking


@given(names, st.lists(names, min_size=1, unique=True), st.data())
def test_the_order_of_the_others_stays_when_a_node_leaves(key: str, nodes: list[str], data: st.DataObject) -> None:
    gone = data.draw(st.sampled_from(nodes))
    left = [node for node in nodes if node != gone]
    assert ranked(key, left) == tuple(node for node in ranked(key, nodes) if node != gone)


def test_nodes_are_first_equally_often() -> None:
    first = Counter(ranked(f"robot-{number}", NODES)[0] for number in range(4000))
    assert all(900 < first[node] < 1100 for node in NODES)


def test_a_node_that_joins_takes_its_share_and_moves_nothing_else() -> None:
    keys = [f"robot-{number}" for number in range(4000)]
    before = {key: ranked(key, NODES)[0] for key in keys}
    after = {key: ranked(key, [*NODES, "10.0.0.5:8001"])[0] for key in keys}
    moved = [key for key in keys if before[key] != after[key]]
    assert {after[key] for key in moved} == {"10.0.0.5:8001"}
    assert 650 < len(moved) < 950


def test_key_and_node_do_not_run_into_each_other() -> None:
    suffixes = "0123456789"
    rankings = {
        tuple(node[-1] for node in ranked(key, [tail + each for each in suffixes]))
        for key, tail in (("ab", "c"), ("a", "bc"))
    }
    assert len(rankings) == 2


@given(st.lists(names, min_size=1, max_size=8, unique=True), st.lists(names, max_size=20, unique=True))
def test_keys_divide_the_nodes_evenly(keys: list[str], nodes: list[str]) -> None:
    shares = {key: share(key, keys, nodes) for key in keys}
    held = Counter(node for mine in shares.values() for node in mine)
    assert held.keys() == set(nodes)
    sizes = {len(mine) for mine in shares.values()}
    if len(nodes) >= len(keys):
        assert set(held.values()) <= {1}
        assert max(sizes) - min(sizes) <= 1
    elif nodes:
        assert sizes == {1}
        assert max(held.values()) - min(held.values()) <= 1


@given(st.lists(names, min_size=1, max_size=6, unique=True), st.lists(names, max_size=8, unique=True))
def test_everybody_divides_alike(keys: list[str], nodes: list[str]) -> None:
    assert share(keys[0], keys, nodes) == share(keys[0], keys[:0:-1], [*nodes[::-1], *nodes])


def test_a_lone_key_has_every_node() -> None:
    assert share("gateway-0", [], NODES) == ranked("gateway-0", NODES)
    assert share("gateway-0", ["gateway-0", "gateway-1"], []) == ()


def test_few_shares_move_when_a_node_or_a_key_leaves() -> None:
    """On average over many fleets of four gateways and eight nodes. A modulo would move nearly all."""
    moved = Counter[str]()
    for fleet in range(100):
        keys = [f"gateway-{fleet}-{number}" for number in range(4)]
        nodes = [f"node-{fleet}-{number}" for number in range(8)]
        before = {node: key for key in keys for node in share(key, keys, nodes)}
        for what, left_keys, left_nodes in (("node", keys, nodes[1:]), ("key", keys[1:], nodes)):
            after = {node: key for key in left_keys for node in share(key, left_keys, left_nodes)}
            moved[what] += sum(after[node] != before[node] for node in after if before[node] in left_keys)
    assert moved["node"] / 700 < 0.25
    assert moved["key"] / 600 < 0.25
