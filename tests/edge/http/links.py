"""Connections on which a test writes the bytes of a request itself."""

from __future__ import annotations

import re
import socket

from tests.edge.robots import Address


def connect(address: Address) -> socket.socket:
    host, port = address.http.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=30)


def head_of(line: str, *headers: str) -> bytes:
    """The head of a request. `line`: its method and path."""
    return "\r\n".join([f"{line} HTTP/1.1", "Host: x", *headers, "", ""]).encode()


def answer_on(link: socket.socket) -> tuple[bytes, bytes]:
    """The head and the body of one answer. An interim answer (100) is part of the head."""
    received = b""
    while True:
        head, blank, body = received.partition(b"\r\n\r\n")
        length = re.search(rb"\r\ncontent-length: (\d+)", head)
        if blank and length is not None and len(body) >= int(length[1]):
            return head, body
        part = link.recv(65536)
        if not part and blank and length is None:
            return head, body
        assert part, received
        received += part
