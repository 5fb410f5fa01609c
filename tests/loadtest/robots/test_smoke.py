"""A short load test from the command line: it starts a service, writes results and a page, and leaves no process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import psutil

from wavserve.bundle.bundle import Bundle

ROOT = Path(__file__).parents[3]
SCENARIO = """
about = "two robots"

[robots.http]
edge = "http-multipart"
replan_at = 8
planner = { num_iterations = 1, num_video_samples = 4, num_value_samples = 2, value_elite_fraction = 0.5 }
deadline_ms = 20000

[robots.grpc]
edge = "grpc"
executed = 0
replan_at = 0
planner = { mode = "off" }

[[phases]]
name = "both"
duration_s = 3
robots = { http = 1, grpc = 1 }
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "loadtest.load", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=300)


def test_two_robots_and_their_own_service(tiny: Bundle, tmp_path: Path) -> None:
    scenario, out = tmp_path / "two.toml", tmp_path / "two.json"
    scenario.write_text(SCENARIO)
    flags = ["--set=backend.kind=local", f"--set=bundle.root={tiny.folder.parent}"]
    ran = run(str(scenario), f"--out={out}", *flags)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = json.loads(out.read_text(encoding="utf-8"))
    [phase] = found["phases"]
    requests = phase["requests"]
    assert requests["answered"] >= 4
    assert requests["answered"] == sum(requests.values()), requests
    assert found["ok"]
    assert {aim["name"]: aim["met"] for aim in found["aims"]} == {
        "requests without an answer": True,
        "answers sent twice": True,
        "answers that contradict their request or their receipt": True,
        "requests that failed with another error": True,
        "plans sent as if on time after their deadline": True,
    }
    assert all(aim.keys() == {"name", "aim", "seen", "met"} for aim in found["aims"])
    assert phase["groups"]["grpc"]["iterations"].keys() == {"0"}
    assert phase["memory"]["max_mb"] > 50
    assert out.with_suffix(".html").read_text(encoding="utf-8").count("<svg") == 10
    assert "both" in ran.stderr
    assert "answers that contradict their request or their receipt  0    0" in ran.stdout
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(p.info["cmdline"] or ())]


def test_a_run_that_cannot_be_made_is_refused_in_one_line() -> None:
    ran = run("nothing")
    assert ran.returncode == 2
    assert ran.stderr.startswith("loadtest: scenario nothing: expected a .toml file or one of burst, ")
    url = "--url=http://127.0.0.1:9"
    for arguments, words in (
        (("smoke", url, "--set=a=b"), "--set=a=b: arguments of `wavserve serve` do not apply to a running service"),
        (("smoke", url), "--grpc: robots of this scenario use gRPC"),
        (("slow-backend", url), "--url: this scenario sets options of its service"),
        (("smoke", "--url=http://127.0.0.1:abc", "--grpc=127.0.0.1:9"), ""),
        (("overload", url, "--grpc=127.0.0.1:9", "--pid=999999999"), ""),
    ):
        ran = run(*arguments)
        assert ran.returncode == 2
        assert ran.stderr.startswith(f"loadtest: {words}")
