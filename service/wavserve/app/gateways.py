"""The gateways before the same Tritons, and which of these each gateway prefers.

Gateways know nothing of each other's plans. What one promises its robots is true only as long as the others do not load
the same device. So they divide the Tritons that work among them, without talking to each other. Part of the composition
root; knows no device.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Sequence

from wavserve.app.members import Members
from wavserve.app.settings import TritonSettings
from wavserve.core.address import is_ip
from wavserve.core.errors import SettingsError
from wavserve.core.rendezvous import ranked, share

log = logging.getLogger(__name__)

Division = tuple[tuple[str, ...], tuple[str, ...]]


class GatewayShare:
    """A `Prefer` of the placement: this gateway's share of the Tritons, and the others, each from best to worst.

    A gateway that is alone has them all. With more gateways than Tritons each has one, and some share it.
    """

    def __init__(self, me: str, members: Members) -> None:
        """`members`: all gateways; none: this one is alone."""
        self.me, self.members = me, members
        self._known: tuple[tuple[str, ...], tuple[str, ...]] | None = None
        self._division: Division = (), ()

    def __call__(self, names: Sequence[str]) -> Division:
        """Divides Tritons by their names. It is asked for every plan, so the last answer is kept."""
        known = self.members.now, tuple(names)
        if known != self._known:
            self._known, before = known, self._division
            mine = share(self.me, *known)
            self._division = mine, tuple(name for name in ranked(self.me, names) if name not in mine)
            if known[0] and mine != before[0]:
                log.info("preferred Tritons of %d gateways: %s", len({self.me, *known[0]}), ", ".join(mine) or "none")
        return self._division


def share_of(settings: TritonSettings) -> GatewayShare:
    """The share of this gateway. Raises SettingsError when it is not among the gateways that the settings name.

    DNS tells addresses. A gateway that knows itself by another name would take itself for two.
    """
    me = settings.gateway or platform.node()
    members = Members(settings.gateways, me)
    if members.are_fixed and members.now and me not in members.now:
        listed = ", ".join(members.now)
        raise SettingsError(f"triton.gateway: expected one of triton.gateways ({listed}), got {me!r}")
    if not members.are_fixed and me not in members.now and not is_ip(me):
        raise SettingsError(
            f"triton.gateway: expected this gateway's IP address, as DNS tells those of triton.gateways, got {me!r}"
        )
    return GatewayShare(me, members)
