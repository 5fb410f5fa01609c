"""A service with few file descriptors, and one at each kind of address, as a process of its own."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.service.processes import until
from tests.service.rig import observation
from wavserve.bundle.bundle import Bundle
from wavserve.clients.plan_client import PlanClient
from wavserve.core.address import Address
from wavserve.system.processes import free_ports
from wavserve.system.serve_process import READY_WITHIN_S

MAX_OPEN_FILES = 160
NUM_HALF_OPEN = 150
LIMITED = ("sh", "-c", f'ulimit -n {MAX_OPEN_FILES}; exec "$@"', "sh")
SERVE = (sys.executable, "-m", "wavserve.cli", "serve", "--backend", "local", "--set", "backend.compile=off")


@dataclass(frozen=True)
class Running:
    process: subprocess.Popen[bytes]
    http: Address
    grpc: Address
    log: Path


@contextmanager
def service(bundle: Bundle, folder: Path, host: str, *flags: str, command: Sequence[str] = ()) -> Iterator[Running]:
    """A service that listens at `host` and is ready at once it is yielded."""
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    http, grpc = (Address(reached, port) for port in free_ports(2))
    ports = [f"--http-port={http.port}", f"--grpc-port={grpc.port}"]
    hosts = ["--set", f"http.host={host}", "--set", f"grpc.host={host}"]
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, *SERVE, "--bundle", str(bundle.folder), *ports, *hosts, *flags],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        until(lambda: process.poll() is not None or is_ready(http), "the service is ready", READY_WITHIN_S)
        assert process.poll() is None, log.read_text()
        yield Running(process, http, grpc, log)
    finally:
        process.terminate()
        assert process.wait(300) == 0, log.read_text()


HALF_HEAD = b"POST /v1/plan HTTP/1.1\r\nHost: x\r\n"
HALF_PREFACE = b"PRI * HTTP/2.0\r\n"


def is_ready(http: Address) -> bool:
    try:
        return httpx.get(f"http://{http}/readyz", timeout=5, trust_env=False).is_success
    except httpx.TransportError:
        return False


def half_open(stack: ExitStack, address: Address, begin: bytes, num: int = NUM_HALF_OPEN) -> list[socket.socket]:
    """Connections on each of which the begin of a request was sent."""
    links = []
    for _ in range(num):
        link = stack.enter_context(socket.create_connection((address.host, address.port), timeout=30))
        try:
            link.sendall(begin)
        except ConnectionError:
            continue  # one too many: the service has closed it
        links.append(link)
    return links


@pytest.mark.parametrize("edge", ["http", "grpc"])
def test_half_open_connections_lock_nobody_out(tiny: Bundle, tmp_path: Path, edge: str) -> None:
    """Connected robots stay served on both edges, new ones are served on the other edge, and the log is short."""
    # the test's own clients have the same address, so the limit of an address is put aside: the limit in all must do
    flags = ["--set", "limits.max_connections_per_address=1000"]
    with service(tiny, tmp_path, "127.0.0.1", *flags, command=LIMITED) as running, ExitStack() as stack:
        kept = httpx.Limits(keepalive_expiry=None)  # by default httpx reconnects after 5 s
        client = httpx.Client(base_url=f"http://{running.http}", timeout=30, trust_env=False, limits=kept)
        http = stack.enter_context(client)
        grpc = stack.enter_context(PlanClient(str(running.grpc)))
        assert http.get("/v1/policies").is_success
        assert grpc.plan(observation()).actions.shape == (16, 7)
        target, other = (running.http, running.grpc) if edge == "http" else (running.grpc, running.http)
        half_open(stack, target, HALF_HEAD if edge == "http" else HALF_PREFACE)
        assert http.get("/v1/policies").is_success
        assert grpc.plan(observation()).actions.shape == (16, 7)
        if other is running.http:
            assert is_ready(other)
        else:
            with PlanClient(str(other)) as newcomer:
                assert newcomer.plan(observation()).actions.shape == (16, 7)
        until(lambda: is_ready(running.http), "the half heads have timed out")
        with PlanClient(str(running.grpc)) as newcomer:
            until(lambda: plans(newcomer), "a new robot is served over gRPC")
        assert running.log.stat().st_size < 20_000
        assert "Traceback" not in running.log.read_text()


def plans(client: PlanClient) -> bool:
    try:
        return client.plan(observation()).actions.shape == (16, 7)
    except Exception:  # noqa: BLE001  # not yet
        return False


def test_one_address_cannot_keep_the_others_out(tiny: Bundle, tmp_path: Path) -> None:
    """100 half-open connections of one address; a robot at another address plans meanwhile."""
    with service(tiny, tmp_path, "0.0.0.0") as running, ExitStack() as stack:
        half_open(stack, running.http, HALF_HEAD, 100)
        link = stack.enter_context(
            socket.create_connection(
                (running.http.host, running.http.port), timeout=30, source_address=("127.0.0.2", 0)
            )
        )
        link.sendall(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert link.recv(1000).startswith(b"HTTP/1.1 200 ")
        with PlanClient(str(running.grpc)) as robot:
            assert robot.plan(observation()).actions.shape == (16, 7)


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("host", ["::1", "::", "localhost"])
def test_a_service_plans_at_every_kind_of_address(tiny: Bundle, tmp_path: Path, host: str) -> None:
    if ":" in host and not has_ipv6():
        pytest.skip("this machine has no ::1")
    with service(tiny, tmp_path, host) as running:
        shown = Address(host, running.http.port)
        assert f"http://{shown}, grpc {Address(host, running.grpc.port)}" in running.log.read_text()
        with PlanClient(str(running.grpc)) as robot:
            assert robot.plan(observation()).actions.shape == (16, 7)
        command = [sys.executable, "-m", "wavserve.cli", "plan", "--server", str(running.grpc)]
        asked = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert "instruction: expected text" in asked.stderr  # the service's answer: the command sends no instruction


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("http.host=1.2.3.4:80", "http.host: expected an IPv4 or IPv6 address or a name, without a port"),
        (
            "grpc.host=no-such-name.invalid",
            "grpc.host: expected an address of this machine, got 'no-such-name.invalid'",
        ),
        ("grpc.host=2001:db8::1", "grpc.host: cannot listen on [2001:db8::1]:"),
        ("limits.max_connections=1000000", "limits.max_connections: expected at most "),
    ],
)
def test_an_address_that_cannot_be_used_ends_the_start(tmp_path: Path, setting: str, message: str) -> None:
    """Nothing is loaded: the bundle does not even exist."""
    ports = ["--set", "http.port=0", "--set", "grpc.port=0", "--bundle", "nowhere", "--set", setting]
    failed = subprocess.run([*SERVE, *ports], capture_output=True, text=True, timeout=300, cwd=tmp_path, check=False)
    assert failed.returncode == 1
    assert message in failed.stderr
    assert "nowhere" not in failed.stderr
    assert "Traceback" not in failed.stderr
