"""`make demo`: starts the service, drives it as a robot would, and writes a page of what it answered.

Six recorded LIBERO observations go through one session over HTTP, eight steps executed between two plans; the last plan
also asks for its imagined future. The service runs as a child process on free loopback ports and always ends with us.
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

from examples.demo_page import Shown, render
from wavserve.system import serve_process

EPISODE = Path(__file__).parent / "libero_object_0"
PLAN_WITHIN_S = 300.0


def main() -> int:
    parser = argparse.ArgumentParser(description="Drive wavserve with six recorded frames and write a page about it.")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder of the page (default %(default)s)")
    parser.add_argument("--url", help="a running service to drive instead of starting one")
    args, serve_arguments = parser.parse_known_args()
    args.out.mkdir(parents=True, exist_ok=True)
    serve_process.raise_on_sigterm()
    try:
        if args.url:
            drive(args.url, args.out)
        else:
            service = started(args.out / "server.log", serve_arguments)
            try:
                drive(service.http, args.out)
            finally:
                service.stop()
    except (TimeoutError, RuntimeError, httpx.HTTPError) as error:
        say(f"demo failed: {error}")
        return 1
    return 0


def started(log: Path, serve_arguments: Sequence[str]) -> serve_process.Child:
    say(f"starting the service; its log is {log}")
    begun = time.monotonic()
    service = serve_process.start(
        log, serve_arguments, lambda waited_s: progress(f"loading and warming up ... {waited_s:4.1f} s")
    )
    say(f"ready after {time.monotonic() - begun:.1f} s")
    return service


def drive(url: str, out: Path) -> None:
    """Six plans in one session, printed and drawn."""
    episode = json.loads((EPISODE / "episode.json").read_text(encoding="utf-8"))
    with httpx.Client(base_url=url, timeout=PLAN_WITHIN_S) as client:
        policy = client.get("/v1/policies").raise_for_status().json()["policies"][0]
        cameras = [camera["name"] for camera in policy["cameras"]]
        plans: list[Shown] = []
        for number, frame in enumerate(episode["frames"]):
            progress(f"plan {number + 1} of {len(episode['frames'])}, control step {frame['step']} ...")
            plans.append(ask(client, observation(episode, number, plans), frame, cameras))
            tell(plans[-1])
    page = out / "index.html"
    page.write_text(render(episode["instruction"], policy["action"]["names"], plans), encoding="utf-8")
    say(f"wrote {page.resolve()} ({page.stat().st_size / 1e6:.1f} MB)")


def observation(episode: Mapping[str, Any], number: int, made: Sequence[Shown]) -> dict[str, Any]:
    """The JSON half of a request: which steps were executed since the last plan, and the state now."""
    frames = episode["frames"]
    step = frames[number]["step"]
    return {
        "instruction": episode["instruction"],
        "state": frames[number]["state"],
        "session_id": made[-1].answer["session_id"] if made else None,
        "sequence": number,
        "control_step": step,
        "executed_steps": step - made[-1].step if made else 0,
        "seed": number,
        "imagine_chunks": 1 if number == len(frames) - 1 else 0,
    }


def ask(client: httpx.Client, request: Mapping[str, Any], frame: Mapping[str, Any], cameras: Sequence[str]) -> Shown:
    """One plan. Raises RuntimeError with the service's own words when it refuses."""
    pictures = {camera: (EPISODE / frame[camera]).read_bytes() for camera in cameras}
    parts: dict[str, tuple[str | None, bytes, str]] = {
        "request": (None, json.dumps(request).encode(), "application/json")
    }
    parts |= {camera: (frame[camera], png, "image/png") for camera, png in pictures.items()}
    started = time.monotonic()
    response = client.post("/v1/plan", files=parts)
    if response.is_error:
        raise RuntimeError(f"the service refused plan {request['sequence']}: {response.status_code} {response.text}")
    return Shown(frame["step"], pictures, response.json(), time.monotonic() - started)


def tell(plan: Shown) -> None:
    """ActionChunk, receipt and stage times."""
    answer, receipt = plan.answer, plan.answer["receipt"]
    warning = ", UNTRAINED random weights" if receipt["untrained"] else ""
    say(f"control step {plan.step}: answered in {plan.wall_s:.2f} s, seed {receipt['seed']}{warning}")
    first = " ".join(f"{value:+.3f}" for value in answer["actions"][0])
    shape = f"{answer['horizon']} steps x {answer['action_dim']}"
    say(f"  chunk    {shape} from {answer['first_control_step']}; first {first}")
    asked = receipt["planner"]["num_iterations"]
    best = ", ".join(f"{max(record['scores']):.3f}" for record in receipt["iterations"]) or "none"
    say(f"  receipt  {receipt['iterations_done']} of {asked} iterations, best score by iteration: {best}")
    say("  stages   " + ", ".join(f"{stage} {ms:.1f} ms" for stage, ms in receipt["stage_ms"].items()))


def progress(words: str) -> None:
    """A line that the next one replaces, where a person is watching."""
    if sys.stdout.isatty():
        print(f"\r\033[K{words}", end="", flush=True)


def say(words: str) -> None:
    print(f"\r\033[K{words}" if sys.stdout.isatty() else words, flush=True)


if __name__ == "__main__":
    sys.exit(main())
