"""Names are looked up at a real DNS server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dns.rcode
import pytest

from tests.dns_server import DnsServer, dns_server
from wavserve.app.dns_lookup import look_up
from wavserve.core.address import DnsName, parse_dns_name


@pytest.fixture
def server() -> Iterator[DnsServer]:
    with dns_server() as running:
        yield running


def name(server: DnsServer) -> DnsName:
    return parse_dns_name(f"dns://{server.at}/triton.:8001")


@pytest.mark.parametrize(
    ("addresses", "found"),
    [
        (("127.0.0.2", "127.0.0.3"), {"127.0.0.2", "127.0.0.3"}),
        (("::1", "fd00::2"), {"::1", "fd00::2"}),
        (("127.0.0.2", "::1"), {"127.0.0.2"}),
        ((), set()),
    ],
)
async def test_a_name_has_the_addresses_of_one_family(
    server: DnsServer, addresses: tuple[str, ...], found: set[str]
) -> None:
    """A pod of two families would otherwise be two devices."""
    server.addresses = addresses
    assert await look_up(name(server)) == found


async def test_a_name_that_does_not_exist_has_no_address(server: DnsServer) -> None:
    server.addresses, server.rcode = ("127.0.0.2",), dns.rcode.NXDOMAIN
    assert await look_up(name(server)) == frozenset()


async def test_hundreds_of_addresses_are_told_over_tcp(server: DnsServer) -> None:
    server.addresses = tuple(f"10.0.{number // 200}.{number % 200}" for number in range(400))
    assert await look_up(name(server)) == set(server.addresses)
    assert server.questions["triton. A"] == 2, "the second over TCP"


@pytest.mark.parametrize("trouble", ["servfail", "refused", "silent", "gone"])
async def test_a_server_that_does_not_answer_is_an_error_and_no_empty_answer(server: DnsServer, trouble: str) -> None:
    server.addresses = ("127.0.0.2",)
    asked = name(server)
    match trouble:
        case "servfail":
            server.rcode = dns.rcode.SERVFAIL
        case "refused":
            server.rcode = dns.rcode.REFUSED
        case "silent":
            server.silent = True
        case "gone":
            asked = parse_dns_name("dns://127.0.0.1:1/triton:8001")
    with pytest.raises(OSError, match=r"\w+"):
        await look_up(asked)


@pytest.mark.parametrize("trouble", [dns.rcode.SERVFAIL, dns.rcode.REFUSED, None])
async def test_ipv4_that_is_not_known_makes_the_whole_look_up_fail(
    server: DnsServer, trouble: dns.rcode.Rcode | None
) -> None:
    """Otherwise a lost answer would replace every address of IPv4 by those of IPv6."""
    server.addresses, server.trouble = ("127.0.0.2", "::1"), {"A": trouble}
    with pytest.raises(OSError, match=r"\w+"):
        await look_up(name(server))


@pytest.mark.parametrize("trouble", [dns.rcode.SERVFAIL, dns.rcode.NOTIMP, None])
async def test_a_server_that_fails_for_ipv6_alone_is_no_trouble(
    server: DnsServer, trouble: dns.rcode.Rcode | None
) -> None:
    """Some do, for names that have addresses of IPv4 only."""
    server.addresses, server.trouble = ("127.0.0.2",), {"AAAA": trouble}
    assert await look_up(name(server)) == {"127.0.0.2"}
    server.addresses = ()
    with pytest.raises(OSError, match=r"\w+"):
        await look_up(name(server))


@pytest.mark.parametrize(
    ("asked", "of_a_pod"),
    [
        ("triton", "triton.wavserve.svc.cluster.local."),
        ("triton.wavserve.svc", "triton.wavserve.svc.wavserve.svc.cluster.local."),
        ("triton.wavserve.svc.cluster.local.", "triton.wavserve.svc.cluster.local."),
    ],
)
async def test_a_short_name_is_looked_up_as_in_a_pod(
    server: DnsServer, tmp_path: Path, asked: str, of_a_pod: str
) -> None:
    """The search list is that of a pod in the namespace `wavserve`."""
    conf = tmp_path / "resolv.conf"
    conf.write_text("nameserver 127.0.0.1\nsearch wavserve.svc.cluster.local svc.cluster.local\noptions ndots:5\n")
    server.addresses = ("127.0.0.2",)
    assert await look_up(parse_dns_name(f"dns://{server.at}/{asked}:8001"), str(conf)) == {"127.0.0.2"}
    assert next(iter(server.questions)) == f"{of_a_pod} A"


async def test_a_machine_without_dns_servers_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="NoResolverConfiguration"):
        await look_up(parse_dns_name("dns:///triton:8001"), str(tmp_path / "none"))


@pytest.mark.parametrize("content", [b"nameserver 10.9\n", b"nameserver \xff\n"], ids=["half an address", "no text"])
async def test_a_file_of_dns_servers_that_cannot_be_read_is_an_error(tmp_path: Path, content: bytes) -> None:
    """It is read while another program writes it. Any other exception would end the service."""
    conf = tmp_path / "resolv.conf"
    conf.write_bytes(content)
    with pytest.raises(OSError, match=r"ValueError|UnicodeDecodeError"):
        await look_up(parse_dns_name("dns:///triton:8001"), str(conf))
