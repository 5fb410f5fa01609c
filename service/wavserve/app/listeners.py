"""Binds the addresses of both edges before anything is loaded, and says how many connections this process can hold.

An address that cannot be used ends the start at once. The sockets stay bound while the models are loaded: no other
process can take the ports, and a robot that connects is refused, because the sockets do not listen yet.
"""

from __future__ import annotations

import errno
import resource
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import grpc.aio

from wavserve.core.address import Address
from wavserve.core.errors import SettingsError
from wavserve.edge.limits import MAX_CONNECTIONS

Resolve = Callable[..., Sequence[tuple[Any, ...]]]
"""`socket.getaddrinfo`"""

_ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
"""An address that this machine does not have. A name may have such addresses beside others: ::1 without IPv6."""

RESERVED_FILES = 64
"""Files that are open beside the connections of robots: models, pipes, connections to Triton, records, libraries."""


def max_connections(wanted: int | None, max_open_files: int) -> int:
    """The connections that each edge may have, so that either can fill up and the other still works.

    `wanted`: the setting. Raises SettingsError where the process could not open so many files.
    """
    possible = (max_open_files - RESERVED_FILES) // 2
    if possible < (wanted or 1):
        raise SettingsError(
            f"limits.max_connections: expected at most {max(possible, 0)}, because this process may open "
            f"{max_open_files} files (ulimit -n) and keeps {RESERVED_FILES} for itself, got {wanted or 1}"
        )
    return wanted or min(possible, MAX_CONNECTIONS)


def max_open_files() -> int:
    """This process's limit of open files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else 1 << 20


def bind(edge: str, host: str, port: int, resolve: Resolve = socket.getaddrinfo) -> list[socket.socket]:
    """Sockets bound to all addresses of a host, at one port. `edge`: the section of the settings, `http` or `grpc`.

    Port 0 is any free port. `::` is every address, of IPv4 too. Raises SettingsError.
    """
    try:
        found = resolve(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise SettingsError(f"{edge}.host: expected an address of this machine, got {host!r}: {error}") from error
    absent: OSError | None = None
    with ExitStack() as stack:
        sockets: list[socket.socket] = []
        for family, target in dict.fromkeys((family, target) for family, _, _, _, target in found):
            chosen = sockets[0].getsockname()[1] if sockets else port
            try:
                sockets.append(_bound(family, (target[0], chosen, *target[2:]), dual=host == "::"))
            except OSError as error:
                if error.errno not in _ABSENT:
                    raise _refusal(edge, host, chosen, error) from error
                absent = error
                continue
            stack.enter_context(sockets[-1])
        if absent is not None and not sockets:
            raise _refusal(edge, host, port, absent) from absent
        stack.pop_all()
        return sockets


def _refusal(edge: str, host: str, port: int, error: OSError) -> SettingsError:
    key = "host" if error.errno in _ABSENT else "port"
    return SettingsError(f"{edge}.{key}: cannot listen on {Address(host, port)}: {error.strerror}")


def _bound(family: int, target: tuple[Any, ...], dual: bool) -> socket.socket:
    """A bound socket. Without SO_REUSEADDR two services could bind one port until the first of them listens."""
    try:
        return _bound_as(family, target, dual, reuse=False)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        return _bound_as(family, target, dual, reuse=True)  # in use only by connections that have ended


def _bound_as(family: int, target: tuple[Any, ...], dual: bool, reuse: bool) -> socket.socket:
    # asyncio sets TCP_NODELAY only on a socket whose protocol is stated as TCP. Without it every answer waits 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not dual)
        listener.bind(target)
    except BaseException:
        listener.close()
        raise
    return listener


def allow_restart(listeners: Sequence[socket.socket]) -> None:
    """Call it before they listen. The next start may bind while connections of this one are ending."""
    for each in listeners:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


def hand_over(listeners: Sequence[socket.socket], server: grpc.aio.Server) -> None:
    """Lets gRPC, which opens its own sockets, bind the addresses of these. Raises SettingsError."""
    for each in listeners:
        host, port = socket.getnameinfo(each.getsockname(), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
        address = Address(host, int(port))  # the host has the scope of a link-local address
        each.close()
        try:
            server.add_insecure_port(str(address))
        except RuntimeError as error:
            raise SettingsError(f"grpc.port: cannot listen on {address}: {error}") from error
