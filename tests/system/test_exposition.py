"""The metrics' text is made beside the event loop, one at a time, and is never older than the question."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field

import pytest
from prometheus_client import CollectorRegistry

from wavserve.system.exposition import OPENMETRICS, PLAIN, Exposition, media_type_for
from wavserve.system.telemetry import Metrics

WAIT_S = 30.0


@dataclass
class SlowEncoder:
    """Makes a text when it is let, and tells which thread asked."""

    begun: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    go: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    threads: list[int] = field(default_factory=list)
    running: int = 0
    most_at_once: int = 0

    def __call__(self, registry: CollectorRegistry) -> bytes:
        self.running += 1
        self.most_at_once = max(self.most_at_once, self.running)
        self.threads.append(threading.get_ident())
        value = registry.get_sample_value("wavserve_robots")
        self.begun.release()
        assert self.go.acquire(timeout=WAIT_S)
        self.running -= 1
        return str(value).encode()


async def begun(encoder: SlowEncoder) -> None:
    assert await asyncio.to_thread(encoder.begun.acquire, timeout=WAIT_S)


async def test_the_loop_is_free_while_a_text_is_made() -> None:
    encoder = SlowEncoder()
    metrics = Metrics()
    metrics.watch_robots(lambda: 1)
    asked = asyncio.create_task(Exposition(metrics, {PLAIN: encoder}).text(PLAIN))
    await begun(encoder)
    encoder.go.release()  # the loop gets here although no text was made yet
    assert await asked == b"1.0"
    assert encoder.threads != [threading.get_ident()]


async def test_readers_share_the_next_text_and_none_gets_one_that_is_older_than_its_question() -> None:
    robots, encoder, metrics = 1.0, SlowEncoder(), Metrics()
    metrics.watch_robots(lambda: robots)
    exposition = Exposition(metrics, {PLAIN: encoder, OPENMETRICS: encoder})
    first = asyncio.create_task(exposition.text(PLAIN))
    await begun(encoder)
    robots = 2.0
    later = [asyncio.create_task(exposition.text(media)) for media in (PLAIN, PLAIN, OPENMETRICS, PLAIN)]
    await asyncio.sleep(0)
    later[0].cancel()  # a reader that left takes nothing from the others
    for _ in range(3):
        encoder.go.release()
    assert await first == b"1.0"
    assert await asyncio.gather(*later[1:]) == [b"2.0"] * 3
    assert (len(encoder.threads), encoder.most_at_once) == (3, 1)


async def test_gauges_are_read_on_the_event_loop() -> None:
    seen: list[int] = []
    metrics = Metrics()
    metrics.watch_robots(lambda: float(seen.append(threading.get_ident()) or 7))
    text = await Exposition(metrics).text(PLAIN)
    assert b"wavserve_robots 7.0" in text
    assert seen == [threading.get_ident()]


async def test_a_reading_that_fails_is_told_to_its_reader_and_the_next_one_is_served() -> None:
    fails, metrics = [True], Metrics()

    def reading() -> float:
        if fails:
            raise RuntimeError("no reading")
        return 1.0

    metrics.watch_robots(reading)
    exposition = Exposition(metrics)
    with pytest.raises(RuntimeError, match="no reading"):
        await exposition.text(PLAIN)
    fails.clear()
    assert b"wavserve_robots 1.0" in await exposition.text(PLAIN)


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3", OPENMETRICS),
        ("text/plain;q=0.3, Application/OpenMetrics-Text", OPENMETRICS),
        ("application/openmetrics-text;version=0.0.1,*/*;q=0.1", PLAIN),
        ("application/openmetrics-text;version=abc", PLAIN),
        ("application/openmetrics-text;version=9.9", PLAIN),
        ("*/*", PLAIN),
        ("", PLAIN),
    ],
)
def test_a_reader_gets_a_format_that_it_accepts(accept: str, media_type: str) -> None:
    assert media_type_for(accept) == media_type
