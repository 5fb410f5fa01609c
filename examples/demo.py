"""`make demo`: starts the service, lets a robot use it, and writes a page.

With the trained policy and the LIBERO simulator the robot is an arm that does a task, and the page has its video.
Otherwise it sends six recorded LIBERO observations in one session over HTTP, with eight steps executed between two
plans; the last plan also requests its imagined future. The service runs as a child process on free loopback ports, and
stops when the demo ends.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from examples import demo_episode
from examples.demo_page import ShownPlan, render
from wavserve.system import serve_process

EPISODE = Path(__file__).parent / "libero_object_0"
PLAN_TIMEOUT_S = 300.0
UNCOMPILED = ("--set", "backend.compile=off")
"""Compiling the models takes longer than it saves in a minute of plans."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Lets an arm in the LIBERO simulator do a task by wavserve's plans, and writes a page. Without the "
        "simulator it sends six recorded frames.",
        epilog="Further arguments are passed to `wavserve serve`.",
    )
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder of the page (default %(default)s)")
    parser.add_argument("--url", help="base URL of a running service; without it, the demo starts one")
    args, serve_arguments = parser.parse_known_args()
    args.out.mkdir(parents=True, exist_ok=True)
    serve_process.raise_on_sigterm()
    try:
        if args.url:
            drive(args.url, args.out)
        else:
            service = started(args.out / "server.log", [*UNCOMPILED, *serve_arguments])
            try:
                drive(service.http, args.out)
            finally:
                service.stop()
    except (TimeoutError, RuntimeError, httpx.HTTPError) as error:
        say(f"demo failed: {error}")
        return 1
    return 0


def started(log: Path, serve_arguments: Sequence[str]) -> serve_process.Child:
    """A ready service. Raises RuntimeError when it exits early, TimeoutError when it is not ready in time."""
    say(f"starting the service; its log is {log}")
    begun = time.monotonic()
    service = serve_process.start(
        log, serve_arguments, lambda waited_s: progress(f"loading and warming up ... {waited_s:4.1f} s")
    )
    say(f"ready after {time.monotonic() - begun:.1f} s")
    return service


def drive(url: str, out: Path) -> None:
    """Shows the service's policy at work, as far as this machine can, and writes the page."""
    with httpx.Client(base_url=url, timeout=PLAN_TIMEOUT_S, trust_env=False) as client:
        policy = client.get("/v1/policies").raise_for_status().json()["policies"][0]
        if reason := demo_episode.obstacle(policy):
            say(f"no closed loop in the simulator: {reason}")
            html = recorded_frames(client, policy)
        else:
            html = closed_loop(url, out)
    page = out / "index.html"
    page.write_text(html, encoding="utf-8")
    say(f"wrote {page.resolve()} ({page.stat().st_size / 1e6:.1f} MB)")


def closed_loop(url: str, out: Path) -> str:
    """Lets an arm in the simulator do a task, and returns the page."""
    say("an arm in the LIBERO simulator does a task; its video takes about half a minute more")
    filmed = demo_episode.film(url, out)
    say(f"{demo_episode.told(filmed)}; the video is {(out / demo_episode.VIDEO).resolve()}")
    return demo_episode.page(filmed)


def recorded_frames(client: httpx.Client, policy: Mapping[str, Any]) -> str:
    """Requests six plans in one session, prints each, and returns the page."""
    episode = json.loads((EPISODE / "episode.json").read_text(encoding="utf-8"))
    cameras = [camera["name"] for camera in policy["cameras"]]
    plans: list[ShownPlan] = []
    for number, frame in enumerate(episode["frames"]):
        progress(f"plan {number + 1} of {len(episode['frames'])}, control step {frame['step']} ...")
        plans.append(request_plan(client, observation(episode, number, plans), frame, cameras))
        show(plans[-1])
    return render(episode["instruction"], policy["action"]["names"], plans)


def observation(episode: Mapping[str, Any], number: int, earlier: Sequence[ShownPlan]) -> dict[str, Any]:
    """The JSON part of a request, with the steps executed since the last of the earlier plans."""
    frames = episode["frames"]
    step = frames[number]["step"]
    return {
        "instruction": episode["instruction"],
        "state": frames[number]["state"],
        "session_id": earlier[-1].answer["session_id"] if earlier else None,
        "sequence": number,
        "control_step": step,
        "executed_steps": step - earlier[-1].step if earlier else 0,
        "seed": number,
        "imagine_chunks": 1 if number == len(frames) - 1 else 0,
    }


def request_plan(
    client: httpx.Client, request: Mapping[str, Any], frame: Mapping[str, Any], cameras: Sequence[str]
) -> ShownPlan:
    """One plan. Raises RuntimeError with the service's status and body when it refuses."""
    images = {camera: (EPISODE / frame[camera]).read_bytes() for camera in cameras}
    parts: dict[str, tuple[str | None, bytes, str]] = {
        "request": (None, json.dumps(request).encode(), "application/json")
    }
    parts |= {camera: (frame[camera], png, "image/png") for camera, png in images.items()}
    started = time.monotonic()
    response = client.post("/v1/plan", files=parts)
    if response.is_error:
        raise RuntimeError(f"the service refused plan {request['sequence']}: {response.status_code} {response.text}")
    return ShownPlan(frame["step"], images, response.json(), time.monotonic() - started)


def show(plan: ShownPlan) -> None:
    """Prints the action chunk, the receipt and the stage times."""
    answer, receipt = plan.answer, plan.answer["receipt"]
    warning = ", UNTRAINED random weights" if receipt["untrained"] else ""
    say(f"control step {plan.step}: answered in {plan.wall_s:.2f} s, seed {receipt['seed']}{warning}")
    first = " ".join(f"{value:+.3f}" for value in answer["actions"][0])
    shape = f"{answer['horizon']} steps x {answer['action_dim']}"
    say(f"  chunk    {shape} from {answer['first_control_step']}; first {first}")
    requested = receipt["planner"]["num_iterations"]
    best = ", ".join(f"{max(record['scores']):.3f}" for record in receipt["iterations"]) or "none"
    say(f"  receipt  {receipt['iterations_done']} of {requested} iterations, best score by iteration: {best}")
    say("  stages   " + ", ".join(f"{stage} {ms:.1f} ms" for stage, ms in receipt["stage_ms"].items()))


def progress(text: str) -> None:
    """Shows a line that the next one replaces; only on a terminal."""
    if sys.stdout.isatty():
        print(f"\r\033[K{text}", end="", flush=True)


def say(text: str) -> None:
    print(f"\r\033[K{text}" if sys.stdout.isatty() else text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
