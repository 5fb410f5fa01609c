"""`wavserve plan`: sends one request to a running server, or replays a recorded plan (`--replay`).

A request needs the base install only; a replay needs the server's packages. Checks only the form of the arguments: the
server checks their values.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from wavserve.commands import output, traces
from wavserve.core.errors import InvalidRequest
from wavserve.core.types import Stop

if TYPE_CHECKING:
    from wavserve.core.messages import ActionChunk, EncodedImage, Observation

REPLAY_TOLERANCE = 1e-5
"""In the policy's units. Batches that differ from those of the recorded run change the order of float32 sums."""

_ENCODINGS = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg"}

_SERVER = "the server's gRPC address, or several with commas (default: %(default)s)"
_PROXY = "connect through the HTTP proxy of the environment (default: ignore it)"
_IMAGE = "a camera's image, PNG or JPEG; repeat for each camera"
_SET = "a planner option, e.g. num_iterations=1; repeatable"
_REPLAY = "replay this record in this process and compare the actions"
_BUNDLE = "with --replay: policy bundle (default: the configured one)"


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """`wavserve plan`."""
    plan = commands.add_parser(
        "plan",
        help="request a plan from a server, or replay a recorded one",
        description="Request a plan from a running server, or replay a recorded plan (--replay).",
    )
    plan.add_argument("--server", default="127.0.0.1:8001", metavar="HOST:PORT,...", help=_SERVER)
    plan.add_argument("--proxy", action="store_true", help=_PROXY)
    plan.add_argument("--image", action="append", default=[], metavar="CAMERA=FILE", help=_IMAGE)
    plan.add_argument("--state", default="", metavar="X,Y,...", help="robot state, in the policy's order and units")
    plan.add_argument("--instruction", default="", metavar="TEXT", help="the robot's task, e.g. 'open the drawer'")
    plan.add_argument("--set", action="append", default=[], metavar="OPTION=VALUE", help=_SET)
    plan.add_argument("--seed", type=int, help="seed of the plan (default: the server draws one)")
    plan.add_argument("--deadline-ms", type=int, metavar="MS", help="milliseconds until the deadline (default: none)")
    plan.add_argument(traces.FLAG, metavar="URL", help=traces.HELP)
    plan.add_argument("--replay", type=Path, metavar="RECORD", help=_REPLAY)
    plan.add_argument("--bundle", type=Path, metavar="FOLDER", help=_BUNDLE)
    plan.add_argument("--json", action="store_true", help="print one JSON object")
    plan.set_defaults(run=_plan)


def _plan(args: argparse.Namespace) -> int:
    if args.replay:
        return _replay(args)
    from wavserve.clients.gateways import parse_grpc_targets
    from wavserve.clients.plan_client import PlanClient

    targets = parse_grpc_targets(args.server, "--server")
    with (
        traces.open_traces(args.traces, "wavserve-plan") as tracer,
        PlanClient(targets, proxy=args.proxy, tracer=tracer) as client,
    ):
        chunk = client.plan(_observation(args))
    output.write(output.as_json(chunk) if args.json else _describe(chunk))
    return 0


def _observation(args: argparse.Namespace) -> Observation:
    """The observation that the arguments describe. Raises InvalidRequest naming the flag."""
    from wavserve.core.messages import Observation

    return Observation(
        images=tuple(_image(text) for text in args.image),
        state=tuple(_number(text) for text in args.state.split(",") if args.state),
        instruction=args.instruction,
        options=dict(_option(text) for text in args.set),
        seed=args.seed,
        deadline_ms=args.deadline_ms,
    )


def _image(text: str) -> EncodedImage:
    from wavserve.core.messages import EncodedImage

    camera, file = _pair("--image", "CAMERA=FILE", text)
    encoding = _ENCODINGS.get(Path(file).suffix.lower())
    if encoding is None:
        raise InvalidRequest("--image", f"a file ending in {', '.join(_ENCODINGS)}", file)
    try:
        return EncodedImage(camera, encoding, Path(file).read_bytes())
    except OSError as error:
        raise InvalidRequest("--image", "a readable file", error) from error


def _option(text: str) -> tuple[str, object]:
    """Name and value of an option. The 1 of `num_iterations=1` is a number; the off of `mode=off` is a text."""
    name, value = _pair("--set", "OPTION=VALUE", text)
    try:
        parsed: object = json.loads(value)
    except json.JSONDecodeError:
        return name, value
    return name, parsed


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InvalidRequest("--state", "numbers separated by commas", repr(text)) from None


def _pair(flag: str, shape: str, text: str) -> tuple[str, str]:
    left, equals, right = text.partition("=")
    if not (left and equals):
        raise InvalidRequest(flag, shape, repr(text))
    return left, right


def _describe(chunk: ActionChunk) -> str:
    receipt = chunk.receipt
    facts = [
        ("policy", f"{receipt.policy} {receipt.policy_digest[:16]}"),
        ("session", f"{chunk.session_id}, sequence {chunk.sequence}"),
        ("steps", f"{len(chunk.actions)} from {chunk.first_control_step}, {chunk.dt_ns / 1e6:g} ms each"),
        (
            "planned",
            f"mode {receipt.config.mode}, {receipt.iterations_done} of {receipt.config.num_iterations} iterations"
            + (f", stopped: {receipt.stopped.value}" if receipt.stopped is not Stop.DONE else "")
            + (", warm start" if receipt.warm_start else ""),
        ),
        ("seed", receipt.seed),
        ("deadline", receipt.deadline.value),
        ("stages", ", ".join(f"{stage} {seconds * 1e3:.1f} ms" for stage, seconds in receipt.stage_s.items())),
    ]
    if chunk.cut is not None:
        facts.append(("CUT", f"before {chunk.cut}"))
    if receipt.untrained:
        facts.append(("UNTRAINED", "random weights: never run these actions on a robot"))
    rows = [(chunk.first_control_step + i, *(f"{x:+.4f}" for x in row)) for i, row in enumerate(chunk.actions.tolist())]
    header = ("step", *(f"a{i}" for i in range(chunk.actions.shape[1])))
    return "\n".join([*(f"{name:<10} {value}" for name, value in facts), "", output.table(header, rows)])


def _replay(args: argparse.Namespace) -> int:
    if args.traces is not None:
        raise InvalidRequest(traces.FLAG, "none beside --replay, which asks no server", args.traces)
    from wavserve.app.replay import replay
    from wavserve.app.settings_sources import Given, load_from_process

    flags = [Given("bundle.path", str(args.bundle), "flag --bundle")] if args.bundle else []
    result = asyncio.run(replay(args.replay, load_from_process(None, flags).settings))
    same = result.max_error <= REPLAY_TOLERANCE
    error = result.max_error if math.isfinite(result.max_error) else None
    facts = {"same": same, "identical": result.identical, "max_abs_error": error, "actions": result.replayed}
    other = (
        f"max abs error {error:.1e}"
        if error is not None
        else f"{len(result.replayed)} steps, not {len(result.recorded)}"
    )
    exactly = "bit for bit" if result.identical else other
    text = f"{args.replay}: {'the same chunk' if same else 'a DIFFERENT chunk'}, {exactly}"
    output.write(output.as_json(facts) if args.json else text)
    return 0 if same else 1
