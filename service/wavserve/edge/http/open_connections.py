"""How many HTTP connections may be open, in all and of each address, and how long each state of one may last.

Knows no protocol.
"""

from __future__ import annotations

import ipaddress
import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

log = logging.getLogger(__name__)

LOG_EVERY_S = 10.0


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """How many connections may be open, and how long each state of one may last.

    A body has a limit of its own (`frontend.UPLOAD_S`).
    """

    max_connections: int
    max_per_address: int
    head_s: float = 10.0
    """from the first byte of a request, or from the connection, to the end of its headers"""
    idle_s: int = 75
    """between an answer and the next request"""
    answer_s: float = 30.0
    """for a client to read what it was sent"""
    linger_s: float = 10.0
    """for a client to read an answer that came before it had sent its body"""
    max_drained_bytes: int = 64 * 1024 * 1024
    """of such a body, read and dropped meanwhile"""


class LogThrottle:
    """Limits a message that may repeat without end to one in LOG_EVERY_S."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next = -1.0
        self._num_held_back = 0

    def due(self) -> int:
        """Counts one occurrence. Returns the number since the last message when the next is due, else 0."""
        self._num_held_back += 1
        if self._clock() < self._next:
            return 0
        self._next = self._clock() + LOG_EVERY_S
        num, self._num_held_back = self._num_held_back, 0
        return num


class OpenConnections:
    """Counts the open connections of each address."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self._of_address: Counter[str] = Counter()
        self._refused = LogThrottle()

    def obstacle(self, address: str) -> str | None:
        """Why another connection of this address cannot be taken; None: it can."""
        limits, num_open = self.limits, self._of_address.total()
        if self._of_address[address] >= limits.max_per_address:
            return f"limits.max_connections_per_address: {limits.max_per_address} connections of {address} are open"
        if num_open >= limits.max_connections:
            return f"limits.max_connections: {num_open} HTTP connections are open"
        return None

    def add(self, address: str) -> None:
        self._of_address[address] += 1

    def remove(self, address: str) -> None:
        self._of_address[address] -= 1
        if not self._of_address[address]:
            del self._of_address[address]

    def log_refusal(self, obstacle: str) -> None:
        if num := self._refused.due():
            log.warning("http: refused %d connections; %s", num, obstacle)


def plain_address(text: str) -> str:
    """An address in one form: a socket for IPv4 and IPv6 names an IPv4 client `::ffff:192.0.2.1`."""
    try:
        parsed = ipaddress.ip_address(text)
    except ValueError:
        return text
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)
