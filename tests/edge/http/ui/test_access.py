"""Who gets the page: names in `Host` that strangers cannot point here, and requests of the page itself."""

from __future__ import annotations

import pytest

from wavserve.edge.http.ui.access import foreign_host, foreign_origin

NAMES = frozenset({"gateway-1", "robots.example"})


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1:8000",
        "[::1]:8000",
        "10.0.0.7:80",
        "localhost",
        "LOCALHOST:8000",
        "gateway-1:8000",
        "Robots.Example",
    ],
)
def test_addresses_and_the_gateways_own_names_are_taken(host: str) -> None:
    assert foreign_host({"host": host}, NAMES) is None


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "evil.example:8000",
        "127.0.0.1.evil.example",
        "127.0.0.1@evil.example",
        "localhost.evil.example",
        "gateway-1.evil.example",
        "[::1",
        "localhost:8000@evil.example",
    ],
)
def test_any_other_name_may_have_been_pointed_here(host: str) -> None:
    refusal = foreign_host({"host": host}, NAMES)
    assert refusal is not None
    assert "ui.hosts" in refusal


def test_a_request_without_a_host_is_refused() -> None:
    assert foreign_host({}, NAMES) is not None


@pytest.mark.parametrize("origin", ["http://127.0.0.1:8000", "https://127.0.0.1:8000"])  # a proxy may end TLS
def test_the_pages_own_requests_are_taken(origin: str) -> None:
    assert foreign_origin({"host": "127.0.0.1:8000", "origin": origin}) is None
    assert foreign_origin({"host": "127.0.0.1:8000", "origin": origin, "sec-fetch-site": "same-origin"}) is None


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "127.0.0.1:8000"},
        {"host": "127.0.0.1:8000", "origin": "null"},
        {"host": "127.0.0.1:8000", "origin": "http://127.0.0.1:9000"},
        {"host": "127.0.0.1:8000", "origin": "http://evil.example"},
        {"host": "127.0.0.1:8000", "origin": "http://127.0.0.1:8000", "sec-fetch-site": "same-site"},
        {"host": "127.0.0.1:8000", "origin": "http://127.0.0.1:8000", "sec-fetch-site": "cross-site"},
        {"host": "127.0.0.1:8000", "origin": "http://[::1"},
        {"origin": ""},
    ],
)
def test_requests_of_other_pages_are_not(headers: dict[str, str]) -> None:
    assert foreign_origin(headers) is not None
