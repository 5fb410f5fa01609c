"""Who may see the live page: checks of a request's own headers. Knows no route.

A gateway on loopback trusts the users of its machine, and a browser of theirs may have pages of strangers open. Such a
page reaches loopback by a name that its owner points there (DNS rebinding), or by a form of its own (a forged request).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from wavserve.edge.report import safe_text

LOCAL_NAMES = ("localhost",)


def foreign_host(headers: Mapping[str, str], names: Collection[str]) -> str | None:
    """Why the page is not shown under the name in `Host`; None: it is.

    An address is no name that anybody could point here. `names`: those under which the gateway is known.
    """
    host = headers.get("host", "")
    if (name := _name_in(host)) is None or not (_is_address(name) or name.lower() in {*LOCAL_NAMES, *names}):
        return f"Host: expected an address, localhost or a name in ui.hosts, got {safe_text(host, 60)!r}"
    return None


def foreign_origin(headers: Mapping[str, str]) -> str | None:
    """Why a request that does something is not taken: it does not come from this page; None: it does."""
    site, origin, host = headers.get("sec-fetch-site"), headers.get("origin", ""), headers.get("host", "")
    if site not in (None, "same-origin"):
        return f"Sec-Fetch-Site: expected same-origin, got {safe_text(site, 60)!r}"
    try:
        is_own = bool(host) and urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        is_own = False
    return None if is_own else f"Origin: expected that of the page, got {safe_text(origin, 60)!r}"


def _name_in(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
