"""The markup of the page: every fact, and every text escaped."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from tests.edge.fakes import example_chunk_of, example_receipt, example_spec
from tests.edge.http.ui.pages import GATEWAY
from tests.planning.rig import example_request
from wavserve.core.control import ExecutionReport, HoldReason, RobotStatus
from wavserve.core.messages import ActionChunk, EncodedImage
from wavserve.core.types import DeadlineResult, Stop
from wavserve.edge.http.ui import drawings
from wavserve.edge.http.ui.page import Page, memory_words, seconds_words, size_words
from wavserve.edge.http.ui.snapshot import Card, DeviceState, Readiness, Share, Snapshot, StoreCall
from wavserve.edge.recent_plans import RecentPlan
from wavserve.edge.refusals import Refusal
from wavserve.planning.device import Health, ModelState
from wavserve.system.memory import MEMORY

SPEC = example_spec()
EVIL = "</dd><script>alert(1)</script><img src=x onerror=alert(2)>\"'&"
VOID = {"meta", "link", "img", "br", "wbr", "polyline", "line", "circle", "polygon"}


class Elements(HTMLParser):
    """The elements of a page and its visible text. Fails where an element is not closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def example_robot(**changes: Any) -> RobotStatus:
    fields: dict[str, Any] = {
        "robot_id": "arm",
        "embodiment": "example_arm",
        "client": "tests 1",
        "peer": "127.0.0.1",
        "epoch": 1,
        "connected_s": 90.0,
        "instruction": "pick",
        "observations": 5,
        "chunks": 3,
        "dropped": 2,
        "errors": 1,
        "plan_ms_p50": 120.0,
        "plan_ms_p95": 1400.0,
        "last_chunk": None,
        "last_chunk_age_s": 0.0,
        "last_report": ExecutionReport(hold_reason=HoldReason.LINK_LOST, faults=("hot",), starved_steps=7),
    }
    return RobotStatus(**fields | changes)


def example_plan(instruction: str = "pick", **receipt: Any) -> RecentPlan:
    request = example_request(SPEC, session_id="s3cret-session", instruction=instruction)
    chunk = example_chunk_of(SPEC, request)
    changed = replace(chunk, receipt=replace(example_receipt(SPEC, request), **receipt))
    return RecentPlan("s3cret-session", instruction, changed, at=97.0)


def example_snapshot(**changes: Any) -> Snapshot:
    device = DeviceState(
        "gpu-0",
        Health.DOWN,
        "its plans differ",
        2,
        3,
        0.25,
        1.5,
        (Share("arm", 1, 0.5, 2.0, True),),
        (ModelState("video_dit", False, 17, "cuda", "another version", {"model_torch_peak_bytes": 2.0**31}, (3, 8)),),
    )
    fields: dict[str, Any] = {
        "now": 100.0,
        "began": 0.0,
        "gateway": GATEWAY,
        "readiness": Readiness(True, None, False, 4),
        "resident_bytes": 3.0 * 2**20,
        "num_robots": 1,
        "num_others": 0,
        "cards": (Card("k1", "arm", example_plan(), example_robot()),),
        "devices": (device,),
        "store_where": "redis://user:***@cache:6379/0",
        "store_last": StoreCall("load", "failed", 1.0, 98.0),
        "store_last_ok": StoreCall("commit", "ok", 0.001, 40.0),
        "num_sessions": 9,
        "refusals": (Refusal("arm-2", "overloaded", "a plan would be late", 12, 99.0),),
        "spec": SPEC,
    }
    return Snapshot(**fields | changes)


@pytest.fixture
def page() -> Page:
    return Page(SPEC)


def shown(page: Page, snapshot: Snapshot) -> Elements:
    return Elements(page.document(page.look(snapshot)))


def test_every_fact_is_there(page: Page) -> None:
    text = shown(page, example_snapshot()).text
    for words in (
        "gw-<1>, process 4711",
        "tiny (dddddddddddd)",
        "random: never run its actions on a robot",
        "1 robot has a stream",
        "3.0 s ago",
        "met, with fewer iterations, margin 125 ms",
        "2 of 2, out of time",
        "6 futures, 4 values each",
        "at step 16: velocity of x2",
        "holds: link lost",
        "Faults hot",
        "120 ms (p50), 1.4 s (p95)",
        "down: under repair: its plans differ",
        "3 calls, the oldest for 250 ms",
        "arm : 1 under way, 500 ms ahead, beyond its share for 2.0 s, refused",
        "video_dit : down , another version, on the GPU, process 17, arena 3 of 8 slots",
        "GPU, peak 2.0 GiB",
        "Redis, redis://user:***@cache:6379/0",
        "does not answer",
        "1 min ago",
        "overloaded (12 times) of arm-2, 1.0 s ago: a plan would be late",
    ):
        assert words in text, words


def test_no_session_is_named(page: Page) -> None:
    assert "s3cret" not in page.document(page.look(example_snapshot()))


def test_every_text_is_escaped(page: Page) -> None:
    device = DeviceState(
        EVIL, Health.UP, EVIL, 0, 0, 0.0, 0.0, (Share(EVIL, 1, 0, 0, False),), (ModelState(EVIL, True, refusal=EVIL),)
    )
    report = ExecutionReport(faults=(EVIL,))
    robot = example_robot(robot_id=EVIL, embodiment=EVIL, client=EVIL, peer=EVIL, instruction=EVIL, last_report=report)
    plan = example_plan(EVIL)
    warned = replace(plan, chunk=replace(plan.chunk, warnings=(EVIL,), chunk_id=EVIL))
    texts = dict.fromkeys(("host", "version", "http", "grpc", "policy", "digest", "backend", "dtype"), EVIL)
    evil = example_snapshot(
        gateway=replace(GATEWAY, **texts),  # type: ignore[arg-type]  # all of them are texts
        readiness=Readiness(False, EVIL, False, 0),
        cards=(Card("k1", EVIL, warned, robot), Card("k2", EVIL, None, robot)),
        devices=(device,),
        store_where=EVIL,
        store_last=StoreCall(EVIL, "ok", 0.0, 0.0),
        refusals=(Refusal(EVIL, EVIL, EVIL, 1, 0.0),),
    )
    seen = shown(page, evil)
    assert [attrs.get("src") for tag, attrs in seen.tags if tag == "script"] == ["/ui/ui.js"]
    assert "img" not in {tag for tag, _ in seen.tags}
    assert not any(name.startswith("on") or name == "style" for _, attrs in seen.tags for name in attrs)
    assert seen.text.count(EVIL) >= 20


def test_names_of_actions_are_escaped() -> None:
    vector = replace(SPEC.action.vector, names=(f"{EVIL}_x",) * SPEC.action.vector.dim)
    page = Page(replace(SPEC, action=replace(SPEC.action, vector=vector)))
    seen = shown(page, example_snapshot())
    assert "img" not in {tag for tag, _ in seen.tags}
    assert f"{EVIL}_ x" in seen.text  # where a line may be broken
    for each in drawings.action_drawings(np.zeros((4, vector.dim), np.float32), vector):
        seen = Elements(str(each.svg))
        assert seen.tags[0][0] == "svg"
        assert str(seen.tags[0][1]["aria-label"]).startswith(EVIL)


def test_imagined_frames_and_their_refusal_are_escaped(page: Page) -> None:
    frames = {"top<b>": (EncodedImage("top<b>", "png", b"\x89PNG"),) * 2}
    seen = Elements(page.alone(page.frames(EVIL, frames)))
    pictures = [attrs for tag, attrs in seen.tags if tag == "img"]
    assert [attrs["alt"] for attrs in pictures] == ["top<b>, imagined frame 1 of 2", "top<b>, imagined frame 2 of 2"]
    assert all(str(attrs["src"]).startswith("data:image/png;base64,") for attrs in pictures)
    assert EVIL in seen.text
    assert EVIL in Elements(page.refusal(EVIL, EVIL)).text


def test_the_drawings_of_a_plan_change_only_with_the_plan(page: Page) -> None:
    first, again = page.look(example_snapshot()), page.look(example_snapshot(now=101.0))
    assert first.pieces["p-k1"] == again.pieces["p-k1"]
    assert first.pieces["f-k1"] != again.pieces["f-k1"]
    plan = example_plan(iterations=())
    newer = replace(plan, chunk=replace(plan.chunk, chunk_id="newer"))
    assert page.look(example_snapshot(cards=(Card("k1", "arm", newer, None),))).pieces["p-k1"] != first.pieces["p-k1"]


@pytest.mark.parametrize(
    ("receipt", "words"),
    [
        ({"deadline": DeadlineResult.LATE, "slack_s": -0.5}, "late, margin -500 ms"),
        ({"deadline": DeadlineResult.NONE, "slack_s": None}, "Deadline none given"),
        ({"deadline": DeadlineResult.MET, "stopped": Stop.SETTLED}, "2 of 2, settled"),
        ({"iterations": ()}, "It was not scored"),
    ],
)
def test_a_plan_of_any_kind_is_shown(page: Page, receipt: dict[str, Any], words: str) -> None:
    cards = (Card("k1", "arm", example_plan(**receipt), None),)
    assert words in shown(page, example_snapshot(cards=cards)).text


def test_a_gateway_without_robots_devices_and_redis_is_shown(page: Page) -> None:
    empty = example_snapshot(
        num_robots=0, cards=(), devices=(), refusals=(), store_where="", store_last=None, store_last_ok=None
    )
    text = shown(page, empty).text
    assert "No robot has a stream" in text
    assert "the memory of this process" in text
    assert "None." in text


def test_a_draining_gateway_says_so(page: Page) -> None:
    text = shown(page, example_snapshot(readiness=Readiness(False, None, True, 0))).text
    assert "Draining: it takes no more plans" in text


def test_a_curve_has_a_point_for_each_iteration() -> None:
    chunk: ActionChunk = example_plan().chunk
    curve = Elements(str(drawings.score_curve(chunk.receipt.iterations)))
    assert [tag for tag, _ in curve.tags].count("circle") == len(chunk.receipt.iterations) == 2
    assert drawings.score_curve(chunk.receipt.iterations[:1])
    assert drawings.score_curve(()) is None


def test_an_action_that_does_not_move_is_drawn() -> None:
    [first, *_] = drawings.action_drawings(np.zeros((1, SPEC.action.vector.dim), np.float32), SPEC.action.vector)
    assert (first.low, first.high) == (0.0, 0.0)
    assert "nan" not in first.svg


def test_words_of_numbers() -> None:
    assert [seconds_words(each) for each in (0.0004, 0.25, 1.0, 75.0, 7200.0, 3e5)] == [
        "0 ms",
        "250 ms",
        "1.0 s",
        "1 min",
        "2 h",
        "3 days",
    ]
    assert seconds_words(float("nan")) == size_words(float("nan")) == "unknown"
    assert [size_words(each) for each in (5.0, 2048.0, 3.5 * 2**20, 2.0**31)] == ["5 B", "2 KiB", "4 MiB", "2.0 GiB"]
    assert [memory_words(name) for name in MEMORY][-1] == "GPU, peak"
