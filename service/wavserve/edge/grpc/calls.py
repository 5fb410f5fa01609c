"""What the methods of the gRPC service share: who calls, and how a call ends with an error."""

from __future__ import annotations

from typing import NoReturn
from urllib.parse import unquote

import grpc

from wavserve.edge.report import ErrorReport
from wavserve.wire.errors import DETAILS_KEY, pack_details, status_text

Context = grpc.aio.ServicerContext[bytes, bytes]


def sender_of(context: Context) -> str:
    """The client's address without its port: `peer` is `ipv4:10.0.0.7:51234` or `ipv6:%5B::1%5D:51234`.

    A connection without an address, such as of a Unix socket, is a sender of its own.
    """
    peer = str(context.peer())
    kind, _, address = peer.partition(":")
    return unquote(address.rpartition(":")[0]).strip("[]") if kind in ("ipv4", "ipv6") else peer


async def abort(context: Context, problem: ErrorReport) -> NoReturn:
    """Ends the call with the status and the details from which a client rebuilds the error."""
    facts = {"error_id": problem.error_id, **problem.all_facts(), "retryable": str(problem.retryable).lower()}
    metadata = {name: str(value) for name, value in facts.items()}
    code = problem.status.grpc
    details = pack_details(code.value[0], problem.detail, problem.name, metadata)
    await context.abort(code, status_text(problem.detail), trailing_metadata=((DETAILS_KEY, details),))
