"""The live page over real sockets: the page, its events while robots plan, frames on demand, and who is refused."""

from __future__ import annotations

import asyncio
import itertools
import re
import socket
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.edge.grpc.control.links import ANSWER_S
from tests.edge.http.ui.pages import PageServed, page_served, watching
from tests.planning.rig import example_request
from wavserve.core.errors import Overloaded
from wavserve.edge.http.open_connections import ConnectionLimits
from wavserve.edge.http.server import create_http_server
from wavserve.edge.http.ui.live import MAX_VIEWERS, Live, Look
from wavserve.edge.http.ui.routes import EventStream, PageConfig
from wavserve.policy.on_demand import WITHIN_S

EVIL = "<script>alert(1)</script>"


@pytest.fixture
async def served() -> AsyncIterator[PageServed]:
    async with page_served() as served:
        yield served


def has(word: str) -> Any:
    return lambda look: any(word in html for html in look["pieces"].values())


async def test_the_page_shows_a_robot_and_its_plan(served: PageServed) -> None:
    link = served.server.link("arm-7", client_name=EVIL)
    await link.open()
    await served.plan(link, instruction=EVIL)
    answer = await served.client.get("/ui")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "arm-7" in answer.text
    assert "Best score by iteration" in answer.text
    assert EVIL not in answer.text
    assert answer.text.count("&lt;script&gt;") == 2
    assert link.welcome is not None
    assert link.welcome.session_id not in answer.text


async def test_every_answer_has_a_strict_policy_and_no_script_of_its_own(served: PageServed) -> None:
    for path in ("/ui", "/ui/ui.js", "/ui/ui.css"):
        answer = await served.client.get(path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
    page = (await served.client.get("/ui")).text
    assert re.findall(r"<script[^>]*>", page) == ['<script src="/ui/ui.js" defer>']
    assert not re.search(r"\son\w+=|\sstyle=|https?://", page)


async def test_the_files_of_the_page_are_few(served: PageServed) -> None:
    assert (await served.client.get("/ui/ui.js")).headers["content-type"].startswith("text/javascript")
    for name in ("other.js", "..%2Froutes.py", "%2e%2e/routes.py", "page.html"):
        assert (await served.client.get(f"/ui/{name}")).status_code == 404


async def test_events_arrive_while_robots_plan(served: PageServed) -> None:
    async with watching(served) as viewer:
        assert viewer.response.headers["content-type"] == "text/event-stream; charset=utf-8"
        name, whole = await viewer.event()
        assert (name, whole["cards"]) == ("look", [])
        link = served.server.link("arm-7")
        await link.open()
        look = await viewer.until(lambda look: look["cards"])
        [[key, shown]] = look["cards"]
        assert shown == "arm-7"
        first = await served.plan(link)
        look = await viewer.until(has("Best score by iteration"))
        second = await served.plan(link, 1, control_step=40, seed=5)
        look = await viewer.until(has(f"{second.first_control_step} to"))
        assert f"p-{key}" in look["pieces"]
        assert first.chunk_id != second.chunk_id
        await link.hang_up()
        await viewer.until(lambda look: [name for _, name in look["cards"]] != ["arm-7"])


async def test_nothing_is_read_while_nobody_watches(served: PageServed) -> None:
    link = served.server.link("arm")
    await link.open()
    async with watching(served) as viewer:
        await viewer.event()
    await served.server.until(lambda: served.page.live.num_viewers == 0)
    await asyncio.sleep(0)
    before = len(served.looks)
    for sequence in range(3):
        await served.plan(link, sequence)
    assert len(served.looks) == before


async def test_a_plan_without_a_stream_is_shown_under_a_name_of_its_own(served: PageServed) -> None:
    chunk = await served.rig.policy.plan(example_request(served.rig.spec))
    page = (await served.client.get("/ui")).text
    assert "1 session without a stream" in page
    assert re.search(r"session [0-9a-f]{6}<", page)
    assert chunk.session_id not in page


async def test_refusals_are_shown_with_their_reason(served: PageServed) -> None:
    served.refusals.note(Overloaded(f"a plan would be late {EVIL}", reason="device_time"), EVIL)
    page = (await served.client.get("/ui")).text
    assert "overloaded" in page
    assert "a plan would be late &lt;script&gt;" in page


async def test_frames_are_imagined_for_the_page_and_for_a_plain_form(served: PageServed) -> None:
    link = served.server.link("arm")
    await link.open()
    await served.plan(link)
    key = await served.key_of("arm")
    part = await served.imagine(key, accept="text/x-part")
    assert part.status_code == 200
    assert part.text.count("data:image/png;base64,") > 1
    assert not part.text.lstrip().startswith("<!doctype")
    alone = await served.imagine(key, accept="text/html,*/*")
    assert alone.text.startswith("<!doctype html>")
    assert part.text.strip() in alone.text
    assert 'href="/ui"' in alone.text


async def test_imagining_yields_to_a_plan_and_says_so(served: PageServed) -> None:
    link = served.server.link("arm")
    await link.open()
    await served.plan(link)
    key = await served.key_of("arm")
    served.server.gate.close()
    first = asyncio.create_task(served.imagine(key))
    await served.server.gate.began.wait()
    refused = await served.imagine(key)
    assert (refused.status_code, "one plan at a time" in refused.text) == (429, True)
    await link.send(link.observation(1))
    await served.server.until(lambda: served.rig.policy.plans_in_flight == 1)
    served.server.gate.open()
    assert (await first).status_code == 200


async def test_a_card_without_a_plan_and_one_that_is_gone_have_no_frames(served: PageServed) -> None:
    await served.server.link("arm").open()
    for key in (await served.key_of("arm"), "r000000000000"):
        answer = await served.imagine(key)
        assert (answer.status_code, "there is no plan" in answer.text) == (404, True)


@pytest.mark.parametrize(
    "headers", [{"origin": "http://evil.example"}, {"origin": "null"}, {"origin": ""}, {"sec-fetch-site": "cross-site"}]
)
async def test_a_strangers_page_imagines_nothing(served: PageServed, headers: dict[str, str]) -> None:
    answer = await served.imagine("r000000000000", **headers)
    assert answer.status_code == 403
    assert "expected" in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/ui", "/ui/events", "/ui/ui.js"])
async def test_a_name_that_a_stranger_pointed_here_gets_nothing(served: PageServed, path: str) -> None:
    answer = await served.client.get(path, headers={"host": "evil.example"})
    assert answer.status_code == 403
    assert "ui.hosts" in answer.json()["detail"]


async def test_a_page_that_is_off_says_how_to_turn_it_on() -> None:
    async with page_served(PageConfig(off="off: ui.enabled = on turns it on")) as served:
        for path in ("/ui", "/ui/events", "/ui/ui.css"):
            answer = await served.client.get(path)
            assert answer.status_code == 403
            assert "ui.enabled = on" in answer.json()["detail"]
        assert (await served.imagine("r0")).status_code == 403
        assert served.looks == []


async def test_a_name_of_the_gateway_is_taken() -> None:
    async with page_served(PageConfig(hosts=frozenset({"robots.example"}))) as served:
        assert (await served.client.get("/ui", headers={"host": "robots.example:8000"})).status_code == 200


async def test_there_are_only_so_many_viewers_and_a_place_is_free_again(served: PageServed) -> None:
    async with httpx.AsyncClient(base_url=served.client.base_url, timeout=ANSWER_S, limits=httpx.Limits()) as client:
        streams = [client.stream("GET", "/ui/events") for _ in range(MAX_VIEWERS)]
        for stream in streams:
            assert (await stream.__aenter__()).status_code == 200
        refused = await client.get("/ui/events")
        assert refused.status_code == 429
        assert "others watch" in refused.json()["detail"]
        assert (await client.get("/ui")).status_code == 200
        await streams[0].__aexit__(None, None, None)
        await served.server.until(lambda: served.page.live.num_viewers < MAX_VIEWERS)
        async with watching(served) as viewer:
            assert (await viewer.event())[0] == "look"
        for stream in streams[1:]:
            await stream.__aexit__(None, None, None)
    await served.server.until(lambda: served.page.live.num_viewers == 0)


async def test_a_draining_gateway_ends_the_events(served: PageServed) -> None:
    async with watching(served) as viewer:
        await viewer.event()
        served.server.robots.drain()
        name = "look"
        while name == "look":
            name, _ = await viewer.event()
        assert name == "bye"
        with pytest.raises(StopAsyncIteration):
            await viewer.event()
    assert (await served.client.get("/ui/events")).status_code == 503


async def test_head_of_the_events_ends_and_takes_no_viewers_place(served: PageServed) -> None:
    """Its answer has no body. The next request on the connection would wait for the end of one that never ends."""
    for _ in range(MAX_VIEWERS + 1):
        answer = await served.client.head("/ui/events")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert (await served.client.get("/healthz")).status_code == 200
    assert served.page.live.num_viewers == 0


async def test_an_onlooker_who_closes_the_page_frees_the_place(served: PageServed) -> None:
    link = served.server.link("arm")
    await link.open()
    await served.plan(link)
    key = await served.key_of("arm")
    served.server.gate.close()
    async with httpx.AsyncClient(base_url=served.client.base_url, timeout=ANSWER_S) as other:
        left = asyncio.create_task(other.post(f"/ui/imagine/{key}", headers={"origin": str(other.base_url)}))
        await served.server.gate.began.wait()
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)
    async with asyncio.timeout(WITHIN_S / 2):
        await served.server.gate.cancelled.wait()
    served.server.gate.open()
    assert (await served.imagine(key)).status_code == 200


async def test_a_viewer_that_does_not_read_is_dropped_and_its_connection_ends() -> None:
    looks = itertools.count()

    async def large() -> Look:
        return Look([], {"large": f"{next(looks)}{'x' * 2_000_000}"})

    live = Live(large, asyncio.Event(), interval_s=0.02)
    limits = ConnectionLimits(max_connections=9, max_per_address=9, answer_s=0.2)
    listener = socket.create_server(("127.0.0.1", 0))
    http = create_http_server(EventStream(live), limits, 5)
    serving = asyncio.create_task(http.serve(sockets=[listener]))
    _, writer = await asyncio.open_connection(*listener.getsockname(), limit=1000)
    writer.write(b"GET /ui/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    async with asyncio.timeout(ANSWER_S):
        with live.watching() as other:
            while live.num_viewers != 2:
                await other.get()
            while live.num_viewers == 2:
                assert await other.get() is not None
            while http.server_state.connections:
                assert await other.get() is not None
    writer.close()
    http.should_exit = True
    await serving


async def test_a_viewer_whose_machine_is_gone_frees_its_place_before_the_kernels_buffer_is_full() -> None:
    """It takes a few hundred bytes and then nothing, as a machine without power. The kernel would take megabytes."""
    looks = itertools.count()

    async def small() -> Look:
        return Look([], {"count": f"{next(looks)}{'x' * 200}"})

    live = Live(small, asyncio.Event(), interval_s=0.1)  # too little to fill any buffer while the test waits
    limits = ConnectionLimits(max_connections=9, max_per_address=9, answer_s=0.5)
    listener = socket.create_server(("127.0.0.1", 0))
    http = create_http_server(EventStream(live), limits, 5)
    serving = asyncio.create_task(http.serve(sockets=[listener]))
    gone = socket.socket()
    gone.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    gone.connect(listener.getsockname())
    gone.sendall(b"GET /ui/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    async with asyncio.timeout(ANSWER_S):
        with live.watching() as other:
            while live.num_viewers != 2:
                await other.get()
            while http.server_state.connections:
                assert await other.get() is not None
            assert live.num_viewers == 1
    gone.close()
    http.should_exit = True
    await serving


async def test_the_page_is_not_in_the_apis_document(served: PageServed) -> None:
    document = (await served.client.get("/openapi.json")).json()
    assert not [path for path in document["paths"] if path.startswith("/ui")]
