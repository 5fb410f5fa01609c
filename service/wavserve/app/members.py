"""What a list of names stands for while the service runs: some are looked up in DNS again and again.

Part of the composition root. A look-up that fails or finds nothing changes nothing: a fleet that works outlives its DNS
server. Knows nothing of what a member is, and whether it works.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence

from wavserve.app.dns_lookup import look_up
from wavserve.core.address import DNS_SCHEME, Address, DnsName, parse_dns_name
from wavserve.core.rendezvous import ranked

log = logging.getLogger(__name__)

MAX_ADDRESSES = 64
"""Most addresses of one name. A gateway asks each Triton four times in `triton.canary_s`."""
MISSING_ANSWERS = 2
"""An address leaves when it is missing in so many answers in a row: some servers tell only a part at a time."""
PAUSE_S = 1.0
"""Shortest time between two look-ups, however much trouble there is."""

LookUp = Callable[[DnsName], Awaitable[frozenset[str]]]
"""The IP addresses of a name. Raises OSError when DNS does not answer."""
OnLookup = Callable[[str], None]
"""Receives the outcome of each look-up: `found`, `empty` or `failed`."""


def ignore_lookup(outcome: str) -> None:
    """An `OnLookup` that does nothing."""


class Members:
    """The members that a list names: a text stands for itself, and `dns:///NAME` for the addresses of the name."""

    def __init__(
        self, listed: Sequence[str], chooser: str, look_up: LookUp = look_up, on_lookup: OnLookup = ignore_lookup
    ) -> None:
        """`chooser` decides which addresses are taken of a name that has more than MAX_ADDRESSES."""
        self._fixed = [each for each in listed if not each.startswith(DNS_SCHEME)]
        names = [each for each in listed if each.startswith(DNS_SCHEME)]
        self._followed = [_Followed(name, chooser, look_up, on_lookup) for name in names]

    @property
    def are_fixed(self) -> bool:
        """Whether no name is looked up."""
        return not self._followed

    @property
    def now(self) -> tuple[str, ...]:
        """The members as last known, each once."""
        found = [address for name in self._followed for address in sorted(name.addresses)]
        return tuple(dict.fromkeys([*self._fixed, *found]))

    async def look(self) -> None:
        """Looks all names up. Never fails."""
        await asyncio.gather(*(name.look() for name in self._followed))


class _Followed:
    """The addresses of one name."""

    def __init__(self, text: str, chooser: str, look_up: LookUp, on_lookup: OnLookup) -> None:
        self.addresses: frozenset[str] = frozenset()
        self._text, self._name = text, _parsed(text)
        self._chooser, self._look_up, self._on_lookup = chooser, look_up, on_lookup
        self._missing: Counter[str] = Counter()
        """answers in a row in which a known address was missing"""
        self._trouble = ""
        """what the log has last said of the name"""

    async def look(self) -> None:
        try:
            found = {self._printed(each) for each in await self._look_up(self._name)}
        except OSError as error:
            self._end("failed", f"cannot be looked up ({error})")
        else:
            if found:
                self._take(found)
            else:
                self._end("empty", "has no address")

    def _take(self, found: set[str]) -> None:
        """A good answer: what is new joins at once, what is missing leaves after MISSING_ANSWERS."""
        self._missing = Counter({each: self._missing[each] + 1 for each in self.addresses - found})
        stay = {each for each in self.addresses if self._missing[each] < MISSING_ANSWERS}
        room = MAX_ADDRESSES - len(stay)
        new = ranked(self._chooser, tuple(found - self.addresses))
        now = frozenset({*stay, *new[: max(room, 0)]})
        for change, addresses in (("joined", now - self.addresses), ("left", self.addresses - now)):
            if addresses:
                log.info("%s: %s %s", self._text, ", ".join(sorted(addresses)), change)
        self.addresses = now
        if len(new) > room:
            self._end("found", f"has {len(found)} addresses, and {MAX_ADDRESSES} are used", trouble="too many")
        else:
            self._end("found", "is found", trouble="")

    def _end(self, outcome: str, words: str, trouble: str | None = None) -> None:
        """Reports a look-up. The log says once what is wrong with the name, and that nothing is any more."""
        self._on_lookup(outcome)
        trouble = outcome if trouble is None else trouble
        if trouble != self._trouble:
            self._trouble = trouble
            log.log(
                logging.WARNING if trouble else logging.INFO,
                "%s: %s; known: %s",
                self._text,
                words,
                ", ".join(sorted(self.addresses)) or "none",
            )

    def _printed(self, ip: str) -> str:
        return ip if self._name.port is None else str(Address(ip, self._name.port))


def _parsed(text: str) -> DnsName:
    """A name of a list of either kind: with a port or without one."""
    with contextlib.suppress(ValueError):
        return parse_dns_name(text)
    return parse_dns_name(text, has_port=False)


async def follow(
    lists: Iterable[Members], period_s: float, trouble: asyncio.Event, on_looked: Callable[[], None]
) -> None:
    """Looks all names up every `period_s`, and soon after `trouble` is set. Runs until it is cancelled."""
    lists = tuple(lists)
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(period_s - PAUSE_S, 0.0)):
                await trouble.wait()
        await asyncio.sleep(min(PAUSE_S, period_s))
        trouble.clear()
        try:
            await asyncio.gather(*(each.look() for each in lists))
            on_looked()
        except Exception:
            log.exception("what DNS found could not be taken up")
