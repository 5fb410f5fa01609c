"""The order of kills: each kind comes equally often, and a seed decides it."""

from __future__ import annotations

import random
from collections import Counter

from loadtest.failover.kills import KINDS, kinds


def test_each_kind_comes_equally_often() -> None:
    drawn = list(kinds(22, random.Random(0)))
    assert Counter(drawn[:20]) == dict.fromkeys(KINDS, 5)
    assert len(drawn) == 22


def test_a_seed_decides_the_order() -> None:
    orders = {tuple(kinds(8, random.Random(seed))) for seed in range(10)}
    assert len(orders) > 5
    assert list(kinds(8, random.Random(3))) == list(kinds(8, random.Random(3)))
