"""A client, or a proxy for it, that ends its own direction of a gRPC connection and would still read."""

from __future__ import annotations

import contextlib
import socket
import threading

import grpc
import pytest

from tests.edge.fakes import example_observation
from tests.edge.robots import message_of
from tests.edge.served import Served
from wavserve.pb.wavserve_pb2_grpc import PlanServiceStub


def test_a_half_closed_connection_counts_as_gone(served: Served) -> None:
    started, cancelled = threading.Event(), threading.Event()
    served.policy.hold, served.policy.started, served.policy.cancelled = True, started.set, cancelled.set
    host, port = served.address.grpc.split(":")
    with (
        socket.create_server(("127.0.0.1", 0)) as proxy,
        grpc.insecure_channel(f"127.0.0.1:{proxy.getsockname()[1]}") as channel,
    ):
        answer = PlanServiceStub(channel).Plan.future(message_of(example_observation()), timeout=60)
        near, far = proxy.accept()[0], socket.create_connection((host, int(port)))
        passing = [threading.Thread(target=pass_on, args=pair) for pair in ((near, far), (far, near))]
        for each in passing:
            each.start()
        assert started.wait(30)
        far.shutdown(socket.SHUT_WR)
        assert cancelled.wait(30)
        with pytest.raises(grpc.RpcError):
            answer.result()
        for link in (near, far):
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)
        for each in passing:
            each.join()
        near.close()
        far.close()


def pass_on(source: socket.socket, target: socket.socket) -> None:
    """Until either is closed, and then closes the target's direction."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
