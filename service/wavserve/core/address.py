"""Hosts, addresses and URLs as text: `127.0.0.1`, `::1`, `localhost`; `127.0.0.1:8000`, `[::1]:8000`, `localhost:8000`.

Knows no network: whether a name exists and an address can be used is known only when it is.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

HOST = "an IPv4 or IPv6 address or a name, without a port"
ADDRESS = "HOST:PORT, with an IPv6 address in brackets"
URL = "http://HOST:PORT or https://HOST:PORT, without a path"
DNS_SCHEME = "dns://"
DNS_PORT = 53

_NAME = re.compile(r"(?=.{1,253}$)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z_]([a-z0-9_-]{0,61}[a-z0-9_])?\.?")
"""The last label begins with a letter: `127.1` and `1.2.3.400` are no names."""
_USER = re.compile(r"[\w.+-]*")
_QUERY = re.compile(r"[?#]")


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a port. As text, an IPv6 address is in brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class DnsName:
    """A name that stands for all addresses which DNS has for it. As text, in gRPC's syntax: `dns:///triton:8001`.

    `server`: the DNS server to ask (`dns://10.96.0.10/triton:8001`); None: those of this machine. `port`: where each
    address listens; None: nobody connects to it.
    """

    host: str
    port: int | None = None
    server: Address | None = None

    def __str__(self) -> str:
        server = "" if self.server is None else str(self.server)
        return f"{DNS_SCHEME}{server}/{self.host}" + ("" if self.port is None else f":{self.port}")


def parse_host(text: str) -> str:
    """A host in its usual form: IPv6 without brackets, `::ffff:192.0.2.1` as the IPv4 address. Raises ValueError."""
    inner = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        parsed = ipaddress.ip_address(inner)
    except ValueError:
        if not _NAME.fullmatch(text.lower()):
            raise ValueError(f"expected {HOST}, got {without_login(text)[:80]!r}") from None
        return text.lower()
    if inner is not text and parsed.version == 4:
        raise ValueError(f"expected {HOST}, got {without_login(text)!r}")
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)  # no socket for IPv6 alone can listen on it


def parse_address(text: str) -> Address:
    """An address with a port above 0. Raises ValueError."""
    host, _, port = text.rpartition(":")
    bare_ipv6 = ":" in host and not host.startswith("[")
    if bare_ipv6 or not (port.isascii() and port.isdecimal() and len(port) <= 5 and 0 < int(port) < 65536):
        raise ValueError(f"expected {ADDRESS}, got {without_login(text)[:80]!r}")
    return Address(parse_host(host), int(port))


def parse_dns_name(text: str, has_port: bool = True) -> DnsName:
    """A name to look up, with a port of the service or without one. Raises ValueError."""
    try:
        scheme, (authority, name) = text[: len(DNS_SCHEME)], text[len(DNS_SCHEME) :].split("/")
        address = parse_address(name) if has_port else Address(parse_host(name), 0)
        server = _dns_server(authority) if authority else None
        if scheme != DNS_SCHEME or is_ip(address.host):
            raise ValueError
    except ValueError:
        expected = f"{DNS_SCHEME}[SERVER[:PORT]]/NAME{':PORT' if has_port else ''}, with SERVER as an IP address"
        raise ValueError(f"expected {expected}, got {without_login(text)[:80]!r}") from None
    return DnsName(address.host, address.port or None, server)


def without_login(text: str) -> str:
    """The text without what may be a password: what is before its last `@`, except a user's name and its `:`, and what
    a URL has from `?` or `#` on. Of a text that can be read in two ways less is left."""
    scheme, slashes, rest = text.partition("//")
    if not slashes or "@" in scheme:
        scheme, slashes, rest = "", "", text
    login, at, place = rest.rpartition("@")
    if at and _QUERY.search(login):
        return f"{scheme}{slashes}***"
    user, colon, _ = login.partition(":")
    name = f"{user}:" if colon and _USER.fullmatch(user) else ""
    hidden = f"{name}***@" if at else ""
    return f"{scheme}{slashes}{hidden}{_QUERY.split(place)[0] if slashes else place}"


def is_url(target: str) -> bool:
    """Whether a target is a URL of HTTP; otherwise it is an address."""
    return target.partition("://")[0] in ("http", "https") and "://" in target


def parse_url(text: str) -> str:
    """The URL of a server, without a slash at its end. Raises ValueError."""
    url = urlsplit(text)
    is_server = bool(url.hostname) and url.port != 0 and url.path in ("", "/")
    if not is_server or url.query or url.fragment or url.username is not None:
        raise ValueError(f"expected {URL}, got {without_login(text)[:80]!r}")
    return text.rstrip("/")


def _dns_server(text: str) -> Address:
    """A server by its IP address, with a port or without."""
    try:
        server = parse_address(text)
    except ValueError:
        server = Address(parse_host(text), DNS_PORT)
    if not is_ip(server.host):
        raise ValueError(f"expected the IP address of a DNS server, got {without_login(text)[:80]!r}")
    return server


def is_ip(host: str) -> bool:
    """Whether a host is an IP address, and no name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
