"""The connections of a client of several gateways: all are closed, whatever becomes of one."""

from __future__ import annotations

import pytest

from wavserve.clients import calls
from wavserve.clients.gateways import Route
from wavserve.clients.peers import AsyncPeers, Peers

NAMES = ("a:1", "b:1", "c:1")


class Peer:
    """A connection. `broken`: it cannot be closed."""

    def __init__(self, broken: bool) -> None:
        self.broken, self.closed = broken, False

    def close(self) -> None:
        self.closed = True
        if self.broken:
            raise OSError("broken")


class AsyncPeer(Peer):
    async def close(self) -> None:  # type: ignore[override]
        super().close()


@pytest.mark.parametrize("broken", NAMES)
async def test_every_connection_is_closed_although_one_cannot_be(broken: str) -> None:
    peers, awaited = ({name: kind(name == broken) for name in NAMES} for kind in (Peer, AsyncPeer))
    route, question = Route("arm", NAMES), calls.policy_call(None)
    with pytest.raises(OSError, match="broken"):
        Peers(route, peers, question).close()
    with pytest.raises(OSError, match="broken"):
        await AsyncPeers(route, awaited, question).close()
    assert all(each.closed for each in (*peers.values(), *awaited.values()))
