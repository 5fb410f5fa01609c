"""Where there is a live page, and under which names."""

from __future__ import annotations

import socket

import pytest

from wavserve.app.live_page import page_config
from wavserve.app.settings import HttpSettings, Settings, UiSettings

LOOPBACK = [["127.0.0.1"], ["::1"], ["127.0.0.1", "::1"], ["127.8.9.1"], ["::ffff:127.0.0.1"]]
BEYOND = [["0.0.0.0"], ["::"], ["10.0.0.7"], ["127.0.0.1", "10.0.0.7"], ["fe80::1%eth0"], ["::ffff:10.0.0.7"]]


def config(addresses: list[str], enabled: str = "auto") -> str | None:
    return page_config(Settings(ui=UiSettings(enabled=enabled)), addresses).off  # type: ignore[arg-type]  # a literal


@pytest.mark.parametrize("addresses", LOOPBACK, ids=", ".join)
def test_there_is_a_page_on_loopback_unless_it_is_turned_off(addresses: list[str]) -> None:
    assert config(addresses) is None
    assert config(addresses, "on") is None
    assert "ui.enabled = on" in (config(addresses, "off") or "")


@pytest.mark.parametrize("addresses", BEYOND, ids=", ".join)
def test_elsewhere_there_is_none_unless_it_is_turned_on(addresses: list[str]) -> None:
    off = config(addresses) or ""
    assert "ui.enabled = on" in off
    assert addresses[-1] in off
    assert config(addresses, "on") is None
    assert config(addresses, "off") is not None


def test_the_page_is_known_under_the_machines_name_its_listening_name_and_those_of_the_settings() -> None:
    settings = Settings(http=HttpSettings(host="Robots"), ui=UiSettings(enabled="on", hosts=("Floor.Example",)))
    assert page_config(settings, ["10.0.0.7"]).hosts == {socket.gethostname().lower(), "robots", "floor.example"}
