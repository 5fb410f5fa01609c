"""Looks names up in DNS. Part of the composition root; knows nothing of what listens at an address.

The library is dnspython, imported where a name is looked up, because most services have none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wavserve.core.address import DnsName

if TYPE_CHECKING:
    from dns.asyncresolver import Resolver

RESOLV_CONF = "/etc/resolv.conf"
LOOKUP_S = 2.0
"""Longest time that DNS may take to answer."""


async def look_up(name: DnsName, resolv_conf: str = RESOLV_CONF) -> frozenset[str]:
    """The IP addresses of a name, empty when it has none: those of IPv4, or where it has none of these, of IPv6.

    A server that has an address of either family must not count twice. So DNS is asked for IPv6 only where there is no
    IPv4, and one that fails for IPv6 alone is no trouble. A relative name gets the search domains of `resolv_conf`, as
    in any pod. Raises OSError when DNS does not answer.
    """
    from dns.asyncresolver import Resolver
    from dns.exception import DNSException

    try:
        resolver = Resolver(resolv_conf)  # read each time: it may have changed
        if name.server is not None:
            resolver.nameservers, resolver.port = [name.server.host], name.server.port
        return await _addresses(resolver, name.host, "A") or await _addresses(resolver, name.host, "AAAA")
    except (DNSException, OSError, ValueError) as error:  # ValueError: `resolv_conf` is written just now, or wrong
        raise OSError(f"{type(error).__name__}: {error}") from error


async def _addresses(resolver: Resolver, host: str, family: str) -> frozenset[str]:
    """The addresses of one family. Raises DNSException when that is not known."""
    from dns.resolver import NXDOMAIN, NoAnswer

    try:
        answer = await resolver.resolve(host, family, lifetime=LOOKUP_S, search=True)
    except (NXDOMAIN, NoAnswer):
        return frozenset()
    return frozenset(str(each) for each in answer)
