"""Which Tritons each of several gateways prefers, without talking to the others."""

from __future__ import annotations

import itertools
import logging

import pytest

from tests.app.test_members import Scripted
from wavserve.app.gateways import GatewayShare, share_of
from wavserve.app.members import Members
from wavserve.app.settings import TritonSettings
from wavserve.core.errors import SettingsError

TRITONS = ("10.0.0.1:8001", "10.0.0.2:8001", "10.0.0.3:8001", "10.0.0.4:8001")


def shares(gateways: list[str], tritons: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    return {me: GatewayShare(me, Members(gateways, me))(tritons)[0] for me in gateways}


def test_a_gateway_that_is_alone_prefers_all() -> None:
    alone = share_of(TritonSettings())
    assert set(alone(TRITONS)[0]) == set(TRITONS)
    assert alone(TRITONS)[1] == ()


@pytest.mark.parametrize("pair", [*itertools.combinations([f"gateway-{name}" for name in "abcdefgh"], 2)])
def test_two_gateways_never_prefer_the_same_of_two_tritons(pair: tuple[str, str]) -> None:
    """By hashing alone, every second pair would."""
    one, other = shares([*pair], TRITONS[:2]).values()
    assert sorted(one + other) == list(TRITONS[:2])


def test_the_others_are_ranked_differently_by_each_gateway() -> None:
    gateways = [f"gateway-{number}" for number in range(12)]
    others = {GatewayShare(me, Members(gateways, me))(TRITONS)[1][0] for me in gateways}
    assert len(others) > 1


def test_more_gateways_than_tritons_share_these() -> None:
    found = shares([f"gateway-{number}" for number in range(4)], TRITONS[:2])
    assert sorted(name for mine in found.values() for name in mine) == sorted(2 * TRITONS[:2])


def test_the_share_follows_the_tritons_that_work() -> None:
    gateways = ["gateway-0", "gateway-1"]
    before, after = shares(gateways, TRITONS), shares(gateways, TRITONS[1:])
    assert sorted(len(mine) for mine in before.values()) == [2, 2]
    assert sorted(len(mine) for mine in after.values()) == [1, 2]
    assert shares(gateways, ()) == {"gateway-0": (), "gateway-1": ()}


async def test_the_share_follows_the_gateways(caplog: pytest.LogCaptureFixture) -> None:
    """A gateway that is not ready is not in DNS yet: it counts all the same."""
    me = "10.1.0.1"
    found = Scripted((), ("10.1.0.1",), ("10.1.0.1", "10.1.0.2"), ("10.1.0.2",), OSError("down"))
    share = GatewayShare(me, Members(["dns:///gateways"], me, found))
    with caplog.at_level(logging.INFO):
        sizes = []
        for _ in range(5):
            await share.members.look()
            sizes.append(len(share(TRITONS)[0]))
    assert sizes == [4, 4, 2, 2, 2]
    assert "preferred Tritons of 2 gateways: " in caplog.text


def test_a_gateway_must_be_among_those_that_are_listed() -> None:
    assert share_of(TritonSettings(gateways=("a", "b"), gateway="b")).me == "b"
    assert share_of(TritonSettings(gateways=("dns:///gateways",), gateway="10.1.0.1")).me == "10.1.0.1"
    with pytest.raises(SettingsError, match=r"triton.gateway: expected one of triton.gateways \(a, b\), got 'c'"):
        share_of(TritonSettings(gateways=("a", "b"), gateway="c"))


@pytest.mark.parametrize("me", ["gateway-0", None])
def test_a_gateway_that_others_know_by_its_address_must_know_it_too(me: str | None) -> None:
    """It would count itself twice, and nobody would prefer the share of the second one."""
    with pytest.raises(SettingsError, match=r"triton\.gateway: expected this gateway's IP address"):
        share_of(TritonSettings(gateways=("dns:///gateways",), gateway=me))
    assert share_of(TritonSettings(gateways=("gateway-0", "dns:///gateways"), gateway="gateway-0")).me == "gateway-0"
