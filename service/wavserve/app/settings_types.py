"""The types of settings' values: how a text becomes a value, what is refused, and what is expected instead.

Knows no setting and no source of values.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_core import PydanticCustomError

from wavserve.core.address import DNS_SCHEME, HOST, parse_address, parse_dns_name, parse_host, without_login

NOTHING = "none"
"""The text that unsets an optional setting."""


def _unset(value: object) -> object:
    return None if value == NOTHING else value


def _listed(value: object) -> object:
    """Splits `a,b`, the form in which flags and variables give several texts. A file may also have a list."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return tuple(value) if isinstance(value, list) else value


def _listed_or_none(value: object) -> object:
    return () if value == NOTHING else _listed(value)


def _camera_names(values: tuple[str, ...]) -> tuple[str, ...]:
    names = [value.rpartition("=")[0] for value in values]
    if not all(names) or len(set(names)) < len(names) or any(value.endswith("=") for value in values):
        raise PydanticCustomError("camera_names", "NAME=CAMERA[,NAME=CAMERA...], each name once, or none")
    return values


def _switch(value: object) -> object:
    """TOML's true and false, and their names, for `on` and `off`."""
    return {"true": "on", "false": "off"}.get(str(value).lower(), value)


def _host_names(values: tuple[str, ...]) -> tuple[str, ...]:
    if any(set("/:@ ,*").intersection(value) for value in values):
        raise PydanticCustomError("host_names", "NAME[,NAME...] without ports, or none")
    return tuple(value.lower() for value in values)


def _endpoints(values: tuple[str, ...]) -> tuple[str, ...]:
    try:
        parsed = tuple(
            str(parse_dns_name(value) if value.startswith(DNS_SCHEME) else parse_address(value)) for value in values
        )
    except ValueError:
        parsed = ()
    if not parsed or len(set(parsed)) < len(parsed):
        raise PydanticCustomError(
            "endpoints",
            "HOST:PORT[,HOST:PORT...], each once, an IPv6 address in brackets, or dns:///NAME:PORT for all addresses "
            "of a name",
        )
    return parsed


def _gateways(values: tuple[str, ...]) -> tuple[str, ...]:
    try:
        parsed = tuple(
            str(parse_dns_name(value, has_port=False)) if value.startswith(DNS_SCHEME) else value for value in values
        )
    except ValueError:
        parsed = ("", "")
    if len(set(parsed)) < len(parsed):
        raise PydanticCustomError(
            "gateways", "NAME[,NAME...], each once, or dns:///NAME for all addresses of a name, or none"
        )
    return parsed


def _host(text: str) -> str:
    try:
        return parse_host(text)
    except ValueError:
        raise PydanticCustomError("host", HOST) from None


_STORE_SCHEMES = ("redis", "rediss", "unix")
_SHOWN_STORE = re.compile(r"(rediss?://([^@/]*@)?([\w.-]+|\[[\w.:%]+\])(:\d*)?(/\d*)?)|(unix://[^/@]*@?/.*)")
_DATABASE = re.compile(r"/?|/[0-9]{1,9}")
_QUERY = {"db", "username", "password", "protocol", "client_name"}
_TLS_QUERY = {"ssl_ca_certs", "ssl_ca_path", "ssl_cert_reqs", "ssl_certfile", "ssl_check_hostname", "ssl_keyfile"}
"""Other names are settings of their own, or the client fails on them at its first call."""
_CLUSTERS = "Sentinel and cluster URLs are not supported: give the address that follows the primary"


class StoreUrl(SecretStr):
    """The URL of a Redis. It prints without its password."""

    def _display(self) -> str:
        shown = without_login(self.get_secret_value())
        return shown if _SHOWN_STORE.fullmatch(shown) else "***"


def store_url(value: StoreUrl) -> StoreUrl:
    """The URL, checked. Raises PydanticCustomError, a ValueError."""
    parts = urlsplit(value.get_secret_value())
    has_place = parts.path if parts.scheme == "unix" else parts.hostname
    if parts.scheme not in _STORE_SCHEMES or not has_place or "," in parts.netloc:
        raise PydanticCustomError(
            "store_url", f"redis://HOST:PORT/DB, rediss://HOST:PORT/DB or unix:///PATH ({_CLUSTERS})"
        )
    if parts.scheme != "unix" and not _DATABASE.fullmatch(parts.path):
        raise PydanticCustomError("store_url", "a URL whose path is the number of a database, such as /0")
    known = _QUERY | _TLS_QUERY if parts.scheme == "rediss" else _QUERY
    if not {name for name, _ in parse_qsl(parts.query, keep_blank_values=True)} <= known:
        raise PydanticCustomError("store_url", f"a URL whose query has only {', '.join(sorted(known))}")
    try:
        _ = parts.port
    except ValueError:
        raise PydanticCustomError("store_url", "a URL whose port is a number up to 65535") from None
    return value


def _collector(text: str) -> str:
    try:
        url = urlsplit(text)
        is_server = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        is_server = False
    if not is_server or url.path not in ("", "/") or url.query or url.fragment or url.username is not None:
        raise PydanticCustomError("collector", "http://HOST:PORT or https://HOST:PORT, without a path and a user")
    return text.rstrip("/")


Port = Annotated[int, Field(ge=0, le=65535)]
Positive = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,100}$")]
Host = Annotated[str, AfterValidator(_host)]
Endpoints = Annotated[tuple[str, ...], BeforeValidator(_listed), AfterValidator(_endpoints)]
Gateways = Annotated[tuple[str, ...], BeforeValidator(_listed_or_none), AfterValidator(_gateways)]
OptionalPath = Annotated[Path | None, BeforeValidator(_unset)]
HostNames = Annotated[tuple[str, ...], BeforeValidator(_listed_or_none), AfterValidator(_host_names)]
Switch = Annotated[Literal["auto", "on", "off"], BeforeValidator(_switch)]
CameraNames = Annotated[tuple[str, ...], BeforeValidator(_listed_or_none), AfterValidator(_camera_names)]
OptionalText = Annotated[Annotated[str, Field(min_length=1)] | None, BeforeValidator(_unset)]
OptionalCount = Annotated[Positive | None, BeforeValidator(_unset)]
OptionalStoreUrl = Annotated[Annotated[StoreUrl, AfterValidator(store_url)] | None, BeforeValidator(_unset)]
OptionalCollector = Annotated[Annotated[str, AfterValidator(_collector)] | None, BeforeValidator(_unset)]
