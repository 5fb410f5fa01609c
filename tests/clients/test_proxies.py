"""Every connection that we open, in a process whose environment names a proxy: none goes through it unless asked for.

The proxy is a real listener that counts its connections.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.clients.servers import closing, resetting
from tests.edge.served import Served

PROXIES = ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
BLOCKING = """
from wavserve.clients.plan_client import PlanClient
with PlanClient(sys.argv[1], proxy=PROXY) as client:
    client.reset("s")
"""
AWAITING = """
from wavserve.clients.async_client import AsyncPlanClient
async def main():
    async with AsyncPlanClient(sys.argv[1], proxy=PROXY) as client:
        await client.reset("s")
asyncio.run(main())
"""
TRITON = """
from tritonclient.utils import InferenceServerException
from wavserve.backends.triton.client import connect
async def main():
    client = connect(sys.argv[1], PROXY)
    try:
        await client.is_server_live(client_timeout=10.0)
    except InferenceServerException as error:
        assert "UNIMPLEMENTED" in str(error), error  # reached the server, which is not Triton
    await client.close()
asyncio.run(main())
"""
PROBE = """
from pathlib import Path
from wavserve.system.serve_process import Child
assert Child(None, sys.argv[1], "", Path()).is_ready()
"""
LOAD = """
from loadtest.load import policy_of
from loadtest.robots.run import Target
assert policy_of(Target(sys.argv[1], None))["name"] == "example"
"""
DEMO = """
import tempfile
from pathlib import Path
from examples.demo import drive
try:
    drive(sys.argv[1], Path(tempfile.mkdtemp()))
except (KeyError, RuntimeError):
    pass  # the service answered: the recorded frames do not fit the example policy
"""


def run_behind(proxy: str, program: str, address: str) -> subprocess.CompletedProcess[str]:
    """Runs a program in a process whose environment names the proxy and no exceptions."""
    unset = {name: value for name, value in os.environ.items() if name.lower() != "no_proxy"}
    environment = unset | dict.fromkeys(PROXIES, f"http://{proxy}")
    environment |= {"GRPC_ADDRESS_HTTP_PROXY": proxy, "GRPC_ADDRESS_HTTP_PROXY_ENABLED_ADDRESSES": "127.0.0.1"}
    command = [sys.executable, "-c", f"import asyncio, sys\n{program}", address]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("program", [BLOCKING, AWAITING, TRITON], ids=["blocking", "awaiting", "triton"])
@pytest.mark.parametrize("asked_for", ["False", "True"])
def test_a_channel_to_this_machine_ignores_proxies(program: str, asked_for: str) -> None:
    with closing() as proxy, resetting() as address:
        done = run_behind(proxy.address, program.replace("PROXY", asked_for), address)
        assert (done.returncode, done.stderr) == (0, "")
        assert proxy.connections == []


@pytest.mark.parametrize("program", [BLOCKING, AWAITING], ids=["blocking", "awaiting"])
@pytest.mark.parametrize("asked_for", ["False", "True"])
def test_a_plan_client_over_http_uses_a_proxy_only_when_asked_for(program: str, asked_for: str, served: Served) -> None:
    """And never to this machine."""
    program = program.replace("PROXY", asked_for)
    with closing() as proxy:
        done = run_behind(proxy.address, program, served.address.http)
        assert (done.returncode, done.stderr) == (0, "")
        assert proxy.connections == []
        done = run_behind(proxy.address, program, "http://robot.invalid:8000")
        assert ("NotReady" if asked_for == "True" else "Unreachable") in done.stderr  # the proxy took the request
        assert bool(proxy.connections) == (asked_for == "True")


@pytest.mark.parametrize("program", [BLOCKING, AWAITING, TRITON], ids=["blocking", "awaiting", "triton"])
@pytest.mark.parametrize(("asked_for", "used"), [("False", False), ("True", True)])
def test_a_channel_to_another_machine_uses_a_proxy_only_when_asked_for(
    program: str, asked_for: str, used: bool
) -> None:
    with closing() as proxy:
        done = run_behind(proxy.address, program.replace("PROXY", asked_for), "robot.invalid:8001")
        assert done.returncode != 0
        assert bool(proxy.connections) == used, done.stderr


@pytest.mark.parametrize("program", [PROBE, LOAD, DEMO], ids=["probe", "load test", "demo"])
def test_our_http_clients_ignore_proxies(program: str, served: Served) -> None:
    with closing() as proxy:
        done = run_behind(proxy.address, program, served.address.http)
        assert (done.returncode, done.stderr) == (0, "")
        assert proxy.connections == []


def test_the_command_line_uses_a_proxy_only_when_asked_for() -> None:
    program = "from wavserve.cli import main\nsys.exit(main(['plan', '--server', sys.argv[1], *FLAGS]))"
    for flags, used in (([], False), (["--proxy"], True)):
        with closing() as proxy:
            done = run_behind(proxy.address, program.replace("FLAGS", str(flags)), "robot.invalid:8001")
            assert done.returncode == 1
            assert bool(proxy.connections) == used, done.stderr
