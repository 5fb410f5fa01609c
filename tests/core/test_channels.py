"""Which gRPC targets are this machine itself, and so never go through a proxy."""

from __future__ import annotations

import pytest

from wavserve.core.channels import is_local, proxy_option

LOCAL = [
    "127.0.0.1:8001",
    "127.8.9.1:8001",
    "localhost:8001",
    "LOCALHOST.:8001",
    "robot.localhost:8001",
    "[::1]:8001",
    "::1",
    "0.0.0.0:8001",
    "[::]:8001",
    "[::ffff:127.0.0.1]:8001",
    "ipv4:127.0.0.1:8001",
    "ipv4:127.0.0.1:8001,127.0.0.1:8002",
    "ipv6:[::1]:8001",
    "ipv6:%5B::1%5D:8001",
    "dns:///localhost:8001",
    "dns:localhost:8001",
    "dns://10.0.0.2:53/localhost:8001",
    "unix:/run/wavserve.sock",
    "unix-abstract:wavserve",
]
NO_PROXY = (("grpc.enable_http_proxy", 0), ("grpc.address_http_proxy_enabled_addresses", ""))
REMOTE = [
    "10.0.0.2:8001",
    "robot:8001",
    "localhost.example.com:8001",
    "[fe80::1]:8001",
    "dns:///robot:8001",
    "dns://127.0.0.1:53/robot:8001",
    "ipv4:127.0.0.1:8001,10.0.0.2:8001",
]


@pytest.mark.parametrize("target", LOCAL)
def test_this_machine_is_never_behind_a_proxy(target: str) -> None:
    assert is_local(target)
    assert proxy_option(target, proxy=True) == NO_PROXY


@pytest.mark.parametrize("target", REMOTE)
def test_another_machine_is_behind_a_proxy_only_when_asked_for(target: str) -> None:
    assert not is_local(target)
    assert proxy_option(target, proxy=False) == NO_PROXY
    assert dict(proxy_option(target, proxy=True)) == {"grpc.enable_http_proxy": 1}
