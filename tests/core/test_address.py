"""Hosts and addresses: one parser and one printed form."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from wavserve.core.address import Address, DnsName, parse_address, parse_dns_name, parse_host, parse_url, without_login


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "0.0.0.0"),
        ("::1", "::1"),
        ("::", "::"),
        ("[::1]", "::1"),
        ("0:0::1", "::1"),
        ("::ffff:127.0.0.1", "127.0.0.1"),
        ("[::ffff:7f00:1]", "127.0.0.1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("localhost", "localhost"),
        ("Robot-3.Lab.", "robot-3.lab."),
        ("my_host", "my_host"),
        ("triton-0.triton.svc.cluster.local", "triton-0.triton.svc.cluster.local"),
    ],
)
def test_hosts_have_one_form(text: str, host: str) -> None:
    assert parse_host(text) == host
    assert parse_address(f"{Address(host, 80)}") == Address(host, 80)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "*",
        "1.2.3.4:80",
        "[::1]:80",
        "[1.2.3.4]",
        "[localhost]",
        "1.2.3",
        "1.2.3.400",
        "http://a",
        "a b",
        "a/b",
        "-a",
    ],
)
def test_what_is_no_host_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="without a port, got"):
        parse_host(text)


@pytest.mark.parametrize(("host", "text"), [("::1", "[::1]:8001"), ("1.2.3.4", "1.2.3.4:8001"), ("a", "a:8001")])
def test_an_ipv6_address_is_printed_in_brackets(host: str, text: str) -> None:
    assert str(Address(host, 8001)) == text


@pytest.mark.parametrize(
    "text", ["a", "a:", ":80", "a:0", "a:65536", "a:-1", "::1:80", "a:٣", "[::1]", "http://a:80", "a:b:80"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_address(text)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("dns:///Triton:8001", DnsName("triton", 8001)),
        ("dns:///triton.wavserve.svc.cluster.local:8001", DnsName("triton.wavserve.svc.cluster.local", 8001)),
        ("dns://10.96.0.10/triton:8001", DnsName("triton", 8001, Address("10.96.0.10", 53))),
        ("dns://127.0.0.1:5353/triton:8001", DnsName("triton", 8001, Address("127.0.0.1", 5353))),
        ("dns://[::1]:5353/triton:8001", DnsName("triton", 8001, Address("::1", 5353))),
        ("dns://::1/triton:8001", DnsName("triton", 8001, Address("::1", 53))),
    ],
)
def test_names_to_look_up_are_written_as_grpc_writes_them(text: str, name: DnsName) -> None:
    assert parse_dns_name(text) == name
    assert parse_dns_name(str(name)) == name


def test_a_name_may_have_no_port() -> None:
    assert parse_dns_name("dns:///gateways", has_port=False) == DnsName("gateways")
    assert str(DnsName("gateways")) == "dns:///gateways"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "triton:8001",
        "dns:triton:8001",
        "dns://triton:8001",
        "dns:///triton",
        "dns:///triton:0",
        "dns:///:8001",
        "dns:///10.0.0.1:8001",
        "dns:///[::1]:8001",
        "dns://server/triton:8001",
        "dns:///triton:8001/x",
        "ipv4:///triton:8001",
        "DNS:///triton:8001",
    ],
)
def test_what_is_no_name_to_look_up_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected dns://"):
        parse_dns_name(text)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("http://u:s3cret@localhost:4318", "http://u:***@localhost:4318"),
        ("redis://s3cret@h/0", "redis://***@h/0"),
        ("redis://u:123/s3cret@h:6379/0", "redis://u:***@h:6379/0"),
        ("redis://u:a@s3cret@h/0", "redis://u:***@h/0"),
        ("redis://u:a//s3cret@h/0", "redis://u:***@h/0"),
        ("redis://a/s3cret:b@h", "redis://***@h"),
        ("redis://u:1?s3cret@h/0", "redis://***"),
        ("redis://h/0?password=a@s3cret", "redis://***"),
        ("http://h:4318/?token=s3cret", "http://h:4318/"),
        ("http://h#s3cret", "http://h"),
        ("u:s3cret@h:8001", "u:***@h:8001"),
        ("u:s3cret@h:8001,http://a:1", "u:***@h:8001,http://a:1"),
        ("a:1,http://u:s3cret@h,http://v:s3cret@i", "a:1,http://u:***@i"),
        ("h:8001,[::1]:8002", "h:8001,[::1]:8002"),
        ("", ""),
    ],
)
def test_a_text_without_its_login_has_no_password(text: str, left: str) -> None:
    assert without_login(text) == left


@pytest.mark.parametrize("parse", [parse_host, parse_address, parse_dns_name, parse_url])
def test_no_error_shows_a_password(parse: Callable[[str], object]) -> None:
    for text in ("http://u:s3cret@h:8000", "u:s3cret@h:8000", "dns://u:s3cret@h/a:8000"):
        with pytest.raises(ValueError, match="expected") as caught:
            parse(text)
        assert "s3cret" not in str(caught.value)
