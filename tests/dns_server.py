"""A real DNS server on this machine, whose answers a test changes while it runs. UDP, and TCP for long ones."""

from __future__ import annotations

import asyncio
import ipaddress
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

MAX_UDP_BYTES = 512


class DnsServer:
    """Answers for every name with the same addresses."""

    def __init__(self) -> None:
        self.addresses: tuple[str, ...] = ()
        """IPv4 and IPv6; a name without any exists all the same"""
        self.rcode = dns.rcode.NOERROR
        """what it answers; other than NOERROR without addresses"""
        self.silent = False
        self.trouble: dict[str, dns.rcode.Rcode | None] = {}
        """what it answers for one type alone (`A`, `AAAA`); None: silence"""
        self.questions: Counter[str] = Counter()
        """over UDP and TCP, by `NAME TYPE`"""
        self.port = 0

    @property
    def at(self) -> str:
        """What follows `dns://` in a name that this server answers for."""
        return f"127.0.0.1:{self.port}"

    def answer(self, question: bytes, max_bytes: int) -> bytes | None:
        """The answer to a question; None: silence."""
        query = dns.message.from_wire(question)
        [asked] = query.question
        kind = dns.rdatatype.to_text(asked.rdtype)
        self.questions[f"{asked.name} {kind}"] += 1
        rcode = self.trouble.get(kind, self.rcode)
        if self.silent or rcode is None:
            return None
        response = dns.message.make_response(query)
        response.set_rcode(rcode)
        version = {dns.rdatatype.A: 4, dns.rdatatype.AAAA: 6}[asked.rdtype]
        found = [each for each in self.addresses if ipaddress.ip_address(each).version == version]
        if found and rcode == dns.rcode.NOERROR:
            response.answer.append(dns.rrset.from_text(asked.name, 5, "IN", asked.rdtype, *found))
        wire = response.to_wire()
        if len(wire) > max_bytes:
            response.answer.clear()
            response.flags |= dns.flags.TC
            wire = response.to_wire()
        return wire

    async def on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = int.from_bytes(await reader.readexactly(2), "big")
        answer = self.answer(await reader.readexactly(length), 65535)
        if answer is not None:
            writer.write(len(answer).to_bytes(2, "big") + answer)
            await writer.drain()
        writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        answer = self._server.answer(data, MAX_UDP_BYTES)
        if answer is not None:
            self._transport.sendto(answer, addr)


async def _serve(server: DnsServer, started: threading.Event, end: asyncio.Event) -> None:
    tcp = await asyncio.start_server(server.on_connection, "127.0.0.1", 0)
    server.port = tcp.sockets[0].getsockname()[1]
    loop = asyncio.get_running_loop()
    udp, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(server), ("127.0.0.1", server.port))
    async with tcp:
        started.set()
        await end.wait()
        udp.close()


@contextmanager
def dns_server() -> Iterator[DnsServer]:
    """A server on a free port, in a thread of its own: it answers while a test waits."""
    server, started, end = DnsServer(), threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=lambda: loop.run_until_complete(_serve(server, started, end)))
    thread.start()
    try:
        assert started.wait(20)
        yield server
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join(20)
        loop.close()
