"""The addresses of both edges are bound before anything is loaded; connections leave files for everything else."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import IPv6Address
from pathlib import Path

import grpc.aio
import pytest

from wavserve.app.listeners import RESERVED_FILES, Resolve, allow_restart, bind, hand_over, max_connections
from wavserve.core.address import parse_host
from wavserve.core.errors import SettingsError


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")


def resolving(*hosts: str) -> Resolve:
    """A name with these addresses."""
    return lambda _host, port, **flags: [
        info for host in hosts for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    ]


@contextmanager
def bound(host: str, port: int = 0, resolve: Resolve = socket.getaddrinfo) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        yield [stack.enter_context(each) for each in bind("http", host, port, resolve)]


def reaches(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=10).close()
    except OSError:
        return False
    return True


@needs_ipv6
def test_a_name_is_bound_at_all_its_addresses_and_one_port() -> None:
    with bound("both", resolve=resolving("127.0.0.1", "::1", "127.0.0.1")) as sockets:
        assert [each.getsockname()[0] for each in sockets] == ["127.0.0.1", "::1"]
        [port] = {each.getsockname()[1] for each in sockets}
        for each in sockets:
            each.listen()
        assert reaches("127.0.0.1", port)
        assert reaches("::1", port)


def test_an_address_of_a_name_that_this_machine_does_not_have_is_left_out() -> None:
    with bound("both", resolve=resolving("2001:db8::1", "127.0.0.1")) as sockets:
        assert [each.getsockname()[0] for each in sockets] == ["127.0.0.1"]


@needs_ipv6
@pytest.mark.parametrize(
    ("host", "reached", "not_reached"),
    [("::", ["127.0.0.1", "::1"], []), ("::1", ["::1"], ["127.0.0.1"]), ("0.0.0.0", ["127.0.0.1"], ["::1"])],
)
def test_what_a_host_listens_on(host: str, reached: list[str], not_reached: list[str]) -> None:
    with bound(host) as [listener]:
        listener.listen()
        port = listener.getsockname()[1]
        assert [reaches(each, port) for each in (*reached, *not_reached)] == [
            *(True for _ in reached),
            *(False for _ in not_reached),
        ]


@pytest.mark.parametrize("listens", [True, False])
def test_a_port_in_use_is_refused_even_by_one_that_does_not_listen_yet(listens: bool) -> None:
    """Two services that start at once: neither listens before its models are loaded."""
    with bound("127.0.0.1") as [first]:
        if listens:
            first.listen()
        port = first.getsockname()[1]
        with pytest.raises(SettingsError, match=rf"http\.port: cannot listen on 127\.0\.0\.1:{port}: Address already"):
            bind("http", "127.0.0.1", port)


def test_a_restart_binds_while_connections_end() -> None:
    with bound("127.0.0.1") as [first]:
        allow_restart([first])
        first.listen()
        port = first.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as robot:
            accepted, _ = first.accept()
            accepted.close()  # closed here first, so the kernel keeps it for a minute
            assert robot.recv(1) == b""
    with bound("127.0.0.1", port) as [second]:
        second.listen()


@pytest.mark.parametrize("edge", ["http", "grpc"])
@pytest.mark.parametrize(
    ("host", "message"),
    [
        ("no-such-name.invalid", "host: expected an address of this machine, got"),
        ("192.0.2.7", "host: cannot listen on"),
    ],
)
def test_a_host_of_another_machine_is_refused(edge: str, host: str, message: str) -> None:
    with pytest.raises(SettingsError, match=rf"{edge}\.{message}.*{host}"):
        bind(edge, host, 0)


def link_local() -> str | None:
    """An address of this machine with a scope, such as `fe80::1%eth0`."""
    try:
        lines = Path("/proc/net/if_inet6").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [line.split() for line in lines if line.startswith("fe80")]
    return f"{IPv6Address(bytes.fromhex(found[0][0]))}%{found[0][5]}" if found else None


@pytest.mark.skipif(link_local() is None, reason="this machine has no link-local address")
async def test_a_link_local_address_keeps_its_scope() -> None:
    host = parse_host(link_local() or "")
    listeners = bind("grpc", host, 0)
    port = listeners[0].getsockname()[1]
    server = grpc.aio.server()
    hand_over(listeners, server)
    await server.start()
    assert reaches(host, port)
    await server.stop(None)


@needs_ipv6
@pytest.mark.parametrize("hosts", [["127.0.0.1"], ["::1"], ["::"], ["0.0.0.0"], ["127.0.0.1", "::1"]])
async def test_grpc_takes_over_every_address(hosts: list[str]) -> None:
    listeners = bind("grpc", hosts[0], 0) if len(hosts) == 1 else bind("grpc", "both", 0, resolving(*hosts))
    port = listeners[0].getsockname()[1]
    server = grpc.aio.server()
    hand_over(listeners, server)
    await server.start()
    for host in hosts:
        assert reaches({"::": "::1", "0.0.0.0": "127.0.0.1"}.get(host, host), port)
    if hosts == ["::"]:
        assert reaches("127.0.0.1", port)
    await server.stop(None)


def test_connections_leave_files_for_everything_else() -> None:
    assert max_connections(None, 160) == (160 - RESERVED_FILES) // 2
    assert max_connections(None, 1 << 20) == 1024
    assert max_connections(7, 160) == 7
    for wanted, files in ((None, RESERVED_FILES), (49, 160), (5000, 1024)):
        with pytest.raises(SettingsError, match=rf"limits\.max_connections: expected at most .*{files} files"):
            max_connections(wanted, files)
