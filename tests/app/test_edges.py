"""The addresses of both edges are bound together or not at all."""

from __future__ import annotations

import socket

import pytest

from wavserve.app.edges import bind_all
from wavserve.app.settings import Settings
from wavserve.core.errors import SettingsError
from wavserve.system.processes import free_ports


def test_an_address_that_cannot_be_used_gives_the_other_one_back() -> None:
    [http] = free_ports(1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = {"http": {"port": http}, "grpc": {"port": taken.getsockname()[1]}}
        with pytest.raises(SettingsError, match=r"grpc\.port") as caught:
            bind_all(Settings.model_validate(ports))
        with socket.socket() as again:
            again.bind(("127.0.0.1", http))
    assert caught.value


def test_addresses_that_are_given_up_are_free() -> None:
    [http, grpc] = free_ports(2)
    listening = bind_all(Settings.model_validate({"http": {"port": http}, "grpc": {"port": grpc}}))
    listening.close()
    for port in (http, grpc):
        with socket.socket() as again:
            again.bind(("127.0.0.1", port))
