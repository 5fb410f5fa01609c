"""The command line: exit codes, error messages, `plan` over a real socket, and the commands of the base install."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest

from tests.collector import Collector, serving
from wavserve.bundle.bundle import digest
from wavserve.cli import main
from wavserve.commands.output import as_json
from wavserve.core.errors import BrokenLimit
from wavserve.core.messages import ActionChunk
from wavserve.core.spec import PlannerConfig
from wavserve.core.types import DeadlineResult, Receipt, Stop
from wavserve.pb import wavserve_pb2 as pb
from wavserve.pb import wavserve_pb2_grpc as pb_grpc
from wavserve.system.processes import free_ports
from wavserve.wire.answers import action_chunk

SERVER_ONLY = (
    "torch",
    "fastapi",
    "pydantic",
    "uvicorn",
    "prometheus_client",
    "PIL",
    "simplejpeg",
    "transformers",
    "diffusers",
)


def example_chunk() -> ActionChunk:
    receipt = Receipt(
        policy="tiny",
        policy_digest="ab" * 32,
        untrained=True,
        seed=7,
        sequence=0,
        config=PlannerConfig(num_iterations=2),
        iterations_done=0,
        stopped=Stop.OUT_OF_TIME,
        warm_start=False,
        deadline=DeadlineResult.MET_DEGRADED,
        slack_s=0.25,
        iterations=(),
        stage_s={"decode": 0.5},
        value_estimate=None,
        digests={"state": "00"},
        version="0.1.0",
    )
    return ActionChunk(
        session_id="opened",
        sequence=0,
        first_control_step=0,
        dt_ns=50_000_000,
        actions=np.array([[0.5, -0.25], [1.0, 2.0]], np.float32),
        valid_until_step=2,
        receipt=receipt,
        imagined={},
        chunk_id="c",
        captured_mono_ns=0,
        server_recv_ns=1,
        server_send_ns=2,
    )


class Server(pb_grpc.PlanServiceServicer):
    """Answers every plan with the example chunk and keeps the requests."""

    def __init__(self) -> None:
        self.requests: list[pb.PlanRequest] = []
        self.address = ""
        self.chunk = example_chunk()

    def Plan(self, request: pb.PlanRequest, context: object) -> pb.ActionChunk:
        self.requests.append(request)
        return action_chunk(self.chunk)


@pytest.fixture
def server() -> Iterator[Server]:
    servicer, listening = Server(), grpc.server(ThreadPoolExecutor(1))
    pb_grpc.add_PlanServiceServicer_to_server(servicer, listening)
    servicer.address = f"127.0.0.1:{listening.add_insecure_port('127.0.0.1:0')}"
    listening.start()
    yield servicer
    listening.stop(grace=None).wait()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "frame.png"
    path.write_bytes(b"encoded")
    return path


def plan_arguments(server: Server, picture: Path, *more: str) -> list[str]:
    given = [f"--server={server.address}", f"--image=agentview={picture}", f"--image=wrist={picture}"]
    return ["plan", *given, "--state=0.5,-1", "--instruction=pick it up", *more]


def test_plan_sends_what_the_flags_say(server: Server, picture: Path) -> None:
    more = ["--set=num_iterations=1", "--set=mode=off", "--set=per_view_noise=true", "--seed=0", "--deadline-ms=900"]
    assert main(plan_arguments(server, picture, *more)) == 0
    [request] = server.requests
    assert [(image.camera, image.encoding, image.data) for image in request.images] == [
        ("agentview", pb.Image.PNG, b"encoded"),
        ("wrist", pb.Image.PNG, b"encoded"),
    ]
    assert (list(request.state), request.instruction) == ([0.5, -1.0], "pick it up")
    assert (request.seed, request.HasField("seed"), request.deadline_ms) == (0, True, 900)
    assert request.planner == pb.PlannerOptions(num_iterations=1, mode="off", per_view_noise=True)


def test_plan_sets_no_field_without_a_flag(server: Server, picture: Path) -> None:
    assert main(plan_arguments(server, picture)) == 0
    [request] = server.requests
    assert not any(request.HasField(name) for name in ("seed", "deadline_ms", "planner"))


def test_plan_prints_chunk_and_receipt(server: Server, picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(plan_arguments(server, picture)) == 0
    text = capsys.readouterr().out
    for words in (
        "tiny",
        "0 of 2 iterations",
        "met_degraded",
        "never run these actions on a robot",
        "+0.5000  -0.2500",
    ):
        assert words in text
    assert main(plan_arguments(server, picture, "--json")) == 0
    chunk = json.loads(capsys.readouterr().out)
    assert chunk["actions"] == [[0.5, -0.25], [1.0, 2.0]]
    assert (chunk["receipt"]["seed"], chunk["receipt"]["deadline"]) == (7, "met_degraded")


def test_plan_prints_where_the_chunk_was_cut(server: Server, picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server.chunk = replace(server.chunk, cut=BrokenLimit(2, 1, "joint_1", "velocity", 3.0, -4.5))
    assert main(plan_arguments(server, picture)) == 0
    assert "before step 2 of the plan: velocity -4.5 of joint_1 (dimension 1) is beyond 3" in capsys.readouterr().out
    assert main(plan_arguments(server, picture, "--json")) == 0
    assert json.loads(capsys.readouterr().out)["cut"]["name"] == "joint_1"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--image=agentview"], "--image: expected CAMERA=FILE, got 'agentview'"),
        (["--image=agentview=x.bmp"], "--image: expected a file ending in .png, .jpg, .jpeg, got x.bmp"),
        (["--image=agentview=none.png"], "--image: expected a readable file"),
        (["--state=1,two"], "--state: expected numbers separated by commas, got 'two'"),
        (["--set=mode"], "--set: expected OPTION=VALUE, got 'mode'"),
        (["--set=iterations=1"], "planner.iterations: expected one of"),
    ],
)
def test_wrong_plan_arguments_are_reported_in_one_line(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", *arguments]) == 1
    message = capsys.readouterr().err
    assert words in message
    assert message.count("\n") == 1


def test_a_wrong_address_among_several_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    for servers, words in [
        ("here", "--server: expected HOST:PORT"),
        ("a:1,http://b:1", "--server[1]: expected HOST:PORT, as the first one, got 'http://b:1'"),
        ("http://a:1", "--server: expected HOST:PORT"),
    ]:
        assert main(["plan", f"--server={servers}"]) == 1
        assert words in capsys.readouterr().err


def test_an_unreachable_server_is_reported_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--server=127.0.0.1:1", "--state=0", "--instruction=x"]) == 1
    message = capsys.readouterr().err
    assert message.startswith("wavserve: 127.0.0.1:1: no service answers: Connection refused")
    assert message.count("\n") == 1


def test_config_show_prints_values_and_sources(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "w.toml"
    file.write_text("[arena]\nnum_slots = 64\n")
    flags = [f"--config={file}", "--set=http.port=9000", "--set", "http.port=9001", "--grpc-port", "9002"]
    assert main(["config", "show", *flags]) == 0
    lines = {line.split(" = ")[0]: " ".join(line.split()) for line in capsys.readouterr().out.splitlines()}
    assert lines["http.port"] == "http.port = 9001 # flag --set"
    assert lines["grpc.port"] == "grpc.port = 9002 # flag --grpc-port"
    assert lines["arena.num_slots"] == f"arena.num_slots = 64 # file {file}"
    assert lines["record.folder"].startswith("record.folder = none #")
    assert "# seed of a preset's random weights" in lines
    assert main(["config", "show", "--json", *flags]) == 0
    assert json.loads(capsys.readouterr().out)["http.port"] == {"value": 9001, "source": "flag --set"}


@pytest.mark.parametrize("command", [["config", "show"], ["serve"]])
def test_wrong_settings_are_reported_in_one_line(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--set=http.prot=1"]) == 1
    assert capsys.readouterr().err.startswith(
        "wavserve: flag --set: unknown setting 'http.prot'; did you mean http.port"
    )


def test_every_setting_is_described_above_its_value(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show"]) == 0
    shown = [line for line in capsys.readouterr().out.splitlines() if line]
    for described, setting in zip(shown[::2], shown[1::2], strict=True):
        assert re.fullmatch(r"# .{8,}", described), described
        assert re.fullmatch(r"[a-z]+\.[a-z_]+ = .+ # .+", setting), setting


def test_an_internal_error_has_an_id_and_a_traceback_under_it() -> None:
    """As the edges report one. The cause here is a broken library."""
    broken = "import sys; from wavserve.cli import main; sys.modules['wavserve.app.settings'] = 1; sys.exit(main())"
    failed = subprocess.run(
        [sys.executable, "-c", broken, "config", "show"], capture_output=True, text=True, timeout=300, check=False
    )
    assert failed.returncode == 1
    log, _, message = failed.stderr.rstrip().rpartition("\n")
    told = re.fullmatch(r"wavserve: an internal error; the traceback is above, under (urn:uuid:[-0-9a-f]{36})", message)
    assert told is not None, message
    assert log.startswith(f"cli: internal error {told[1]}\nTraceback")


@pytest.mark.parametrize("arguments", [[], ["fly"], ["plan", "--altitude=3"], ["config", "show", "--set=http.port"]])
def test_wrong_usage_is_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        main(arguments)
    assert exited.value.code == 2
    assert "usage: wavserve" in capsys.readouterr().err


def test_a_closed_pipe_prints_no_traceback() -> None:
    show = [sys.executable, "-m", "wavserve.cli", "config", "show", "--json"]
    with subprocess.Popen(show, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stderr is not None
        writer.stdout.close()
        assert writer.stderr.read() == ""
        assert writer.wait(300) == 141


def test_version_is_that_of_the_project(capsys: pytest.CaptureFixture[str]) -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    with pytest.raises(SystemExit) as exited:
        main(["--version"])
    assert (exited.value.code, capsys.readouterr().out) == (0, f"wavserve {project['version']}\n")


def test_bundle_create_refuses_an_unknown_preset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bundle", "create", "--preset=huge", f"--out={tmp_path / 'b'}"]) == 1
    assert "huge" in capsys.readouterr().err


def test_bundle_create_then_inspect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "tiny"
    assert main(["bundle", "create", "--preset=tiny", f"--out={folder}", "--seed=3"]) == 0
    assert capsys.readouterr().out.splitlines() == [str(folder)]
    assert main(["bundle", "inspect", str(folder)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["spec"]["untrained"] is True
    assert "seed 3" in told["spec"]["notes"]
    assert len(told["golden_digest"]) == 64


def test_bundle_prepare_creates_what_the_settings_name_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"ROOT": str(tmp_path), "PRESET": "tiny", "SEED": "3"}.items():
        monkeypatch.setenv(f"WAVSERVE_BUNDLE__{name}", value)
    assert main(["bundle", "prepare"]) == 0
    first = digest(tmp_path / "tiny")
    monkeypatch.setenv("WAVSERVE_BUNDLE__SEED", "4")
    assert main(["bundle", "prepare"]) == 0
    assert digest(tmp_path / "tiny") == first
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / "tiny")] * 2
    (tmp_path / "tiny" / "policy.json").unlink()
    assert main(["bundle", "prepare"]) == 1


def test_a_golden_plan_is_added_later_and_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "tiny"
    assert main(["bundle", "create", "--preset=tiny", f"--out={folder}", "--no-golden"]) == 0
    assert main(["bundle", "inspect", str(folder)]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["golden_digest"] == ""
    assert main(["bundle", "golden", str(folder)]) == 0
    (digest,) = capsys.readouterr().out.split()
    assert main(["bundle", "inspect", str(folder)]) == 0
    assert json.loads(capsys.readouterr().out)["golden_digest"] == digest
    assert main(["bundle", "golden", str(folder)]) == 1
    assert "delete it first" in capsys.readouterr().err


def test_a_plans_span_reaches_the_collector_before_the_command_ends(
    server: Server, picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(Collector()) as collector:
        assert main(plan_arguments(server, picture, f"--traces={collector.endpoint}/")) == 0
    [span] = collector.spans
    assert (span.service, span.name, span.attributes["wavserve.chunk"]) == ("wavserve-plan", "robot.plan", "c")


def test_a_collector_that_is_away_costs_no_plan(
    server: Server, picture: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    address = f"http://127.0.0.1:{free_ports(1)[0]}"
    assert main(plan_arguments(server, picture, f"--traces={address}")) == 0
    assert "planned" in capsys.readouterr().out
    assert "the collector did not take the last spans within 2 s: they are lost" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["plan", "--traces=127.0.0.1:4318"],
            "--traces: expected http://HOST:PORT or https://HOST:PORT, without a path",
        ),
        (["plan", "--traces=http://a:4318/v1/traces"], "--traces: expected http://HOST:PORT or https://HOST:PORT"),
        (["plan", "--traces=http://a:99999"], "--traces: expected http://HOST:PORT or https://HOST:PORT"),
        (["plan", "--traces=http://a:4318", "--replay=r"], "--traces: expected none beside --replay"),
        (
            ["libero", "--suite=s", "--traces=http://a:4318", "--in-process=b"],
            "--traces: expected none beside --in-pro",
        ),
        (["libero", "--suite=s", "--traces=a"], "--traces: expected http://HOST:PORT or https://HOST:PORT"),
        (["piper", "--bus=virtual", "--armed", "--traces=a"], "--traces: expected http://HOST:PORT or https://HOST"),
    ],
)
def test_a_collector_that_cannot_be_is_refused(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    assert words in capsys.readouterr().err


def test_traces_without_their_extra_are_refused_in_one_line() -> None:
    absent = BASE_INSTALL.replace(repr(SERVER_ONLY), repr(("opentelemetry",)))
    ran = run_python(f"{absent}\nsys.exit(main(['plan', '--traces=http://127.0.0.1:4318']))")
    assert ran.returncode == 1
    assert "--traces: expected the extra otel (pip install 'wavserve[otel]'), got no opentelemetry" in ran.stderr
    assert ran.stderr.count("\n") == 1


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


BASE_INSTALL = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {SERVER_ONLY!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
from wavserve.cli import main
from wavserve.commands.output import as_json
"""


def test_the_robot_client_starts_without_the_servers_packages() -> None:
    ran = run_python(f"{BASE_INSTALL}\nimport wavserve.clients.plan_client\nmain(['plan', '--help'])")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "--instruction" in ran.stdout


@pytest.mark.parametrize("command", ["serve", "config', 'show", "bundle', 'inspect', '.", "plan', '--replay', 'x"])
def test_a_missing_extra_is_reported_in_one_line(command: str) -> None:
    ran = run_python(f"{BASE_INSTALL}\nsys.exit(main(['{command}']))")
    assert ran.returncode == 1
    assert "pip install '.[server]' in the source folder" in ran.stderr
    assert ran.stderr.count("\n") == 1


def test_no_server_package_is_imported_before_a_command_runs() -> None:
    ran = run_python(
        "import sys, wavserve.cli, wavserve.clients.plan_client as _\n"
        f"print([name for name in {SERVER_ONLY!r} if name in sys.modules])"
    )
    assert (ran.stdout.strip(), ran.stderr) == ("[]", "")


def test_a_large_seed_is_printed_as_text_that_no_json_library_rounds() -> None:
    receipt = replace(example_chunk().receipt, seed=2**63 - 1)
    assert json.loads(as_json(receipt))["seed"] == str(2**63 - 1)
    assert json.loads(as_json(replace(receipt, seed=2**53 - 1)))["seed"] == 2**53 - 1
