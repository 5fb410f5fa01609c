"""Options that all our gRPC channels share, as plain pairs: how soon they reconnect, and whether they use a proxy.

Knows neither gRPC nor what a channel is for.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import unquote

MAX_BACKOFF_S = 2.0
"""The longest pause between two attempts to connect, and the longest that an attempt may take."""
MAX_METADATA_BYTES = 64 * 1024
"""Of one answer. gRPC's default of 8 KiB is less than an error text of Triton may have."""

_LOCAL_SCHEMES = ("unix", "unix-abstract", "vsock")
_NETWORK_SCHEMES = ("dns", "ipv4", "ipv6")
SCHEMES = _LOCAL_SCHEMES + _NETWORK_SCHEMES
"""What a target may begin with, before a colon, instead of a host."""

Options = tuple[tuple[str, int | str], ...]

RECONNECT: Options = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_600),  # gRPC makes a pause up to a fifth longer
    ("grpc.min_reconnect_backoff_ms", round(MAX_BACKOFF_S * 1e3)),  # how long an attempt may take, by default 20 s
    ("grpc.dns_min_time_between_resolutions_ms", round(MAX_BACKOFF_S * 1e3)),  # by default 30 s
    ("grpc.dns_ares_query_timeout", round(MAX_BACKOFF_S * 1e3)),  # by default two minutes
)


def proxy_option(target: str, proxy: bool) -> Options:
    """With `proxy`, the channel goes through the proxy of the environment, but never to this machine itself."""
    if proxy and not is_local(target):
        return (("grpc.enable_http_proxy", 1),)
    # the second stands for GRPC_ADDRESS_HTTP_PROXY_ENABLED_ADDRESSES, which the first does not switch off
    return (("grpc.enable_http_proxy", 0), ("grpc.address_http_proxy_enabled_addresses", ""))


def is_local(target: str) -> bool:
    """Whether a gRPC target is this machine: a loopback address, `localhost` or a local socket."""
    scheme, _, rest = unquote(target).partition(":")
    if scheme in _LOCAL_SCHEMES:
        return True
    addresses = rest.rpartition("/")[2] if scheme in _NETWORK_SCHEMES else unquote(target)
    return all(_is_loopback(_host(address)) for address in addresses.split(","))


def _host(address: str) -> str:
    """The host of `host:port`, `[host]:port` or a bare IPv6 address."""
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address.partition(":")[0] if address.count(":") == 1 else address


def _is_loopback(host: str) -> bool:
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback or address.is_unspecified  # Linux connects 0.0.0.0 to itself
