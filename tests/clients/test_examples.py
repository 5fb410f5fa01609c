"""The Python examples of README.md and docs/api.md run as they are written, against a gateway of this process."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from tests.clients.test_robot_service import Service
from tests.edge.fakes import RecordingPolicy, example_limits, example_spec
from tests.edge.robots import serving
from tests.planning.rig import RigOptions, rigged
from wavserve.system.telemetry import Metrics

ROOT = Path(__file__).parents[2]


def examples(document: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(encoding="utf-8"), re.DOTALL)


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def example_with(text: str) -> str:
    [program] = [each for each in examples("docs/api.md") if text in each]
    return program


def test_a_first_plan_is_made_by_the_readmes_example() -> None:
    policy = RecordingPolicy(spec=example_spec("area"))
    program = next(each for each in examples("README.md") if "import PlanClient" in each)
    with serving(policy, replace(example_limits(), max_body_bytes=2_000_000), Metrics()) as address:
        ran = run(program.replace("http://127.0.0.1:8000", address.http).replace("127.0.0.1:8001", address.grpc))
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith("session-of-the-fake [[")
    [request] = policy.requests
    assert {name: pixels.shape for name, pixels in request.images.items()} == {
        "agentview": (128, 128, 3),
        "wrist": (128, 128, 3),
    }


def test_a_session_goes_on_after_the_readmes_example() -> None:
    policy = RecordingPolicy(spec=example_spec("area"))
    first = next(each for each in examples("README.md") if "import PlanClient" in each)
    program = first + example_with("sequence=1")
    with serving(policy, replace(example_limits(), max_body_bytes=2_000_000), Metrics()) as address:
        ran = run(program.replace("http://127.0.0.1:8000", address.http).replace("127.0.0.1:8001", address.grpc))
    assert (ran.returncode, ran.stderr) == (0, "")
    assert [(each.sequence, each.executed_steps) for each in policy.requests] == [(0, 0), (1, 8)]
    assert policy.requests[1].session_id == "session-of-the-fake"


async def test_a_robot_moves_by_the_example_of_the_stream() -> None:
    async with rigged(RigOptions()) as rig:
        service = Service(rig.policy)
        await service.start()
        camera = rig.policy.spec.cameras[0]
        program = example_with("RobotClient(SERVER, robot)")
        for old, new in (
            ("127.0.0.1:8001", f"127.0.0.1:{service.port}"),
            ("(480, 640, 3)", f"({camera.height}, {camera.width}, 3)"),
            ("range(100)", "range(30)"),
        ):
            assert old in program
            program = program.replace(old, new)
        ran = await asyncio.to_thread(run, f"{program}\nprint(player.executed_steps, command.action)")
        await service.rpc.stop(None)
    assert (ran.returncode, ran.stderr) == (0, "")
    executed, _, action = ran.stdout.partition(" ")
    assert int(executed) > 10
    assert action.startswith("[")
