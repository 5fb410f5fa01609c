"""What is watched beside the robots: /healthz round trips, this process's own lateness, /metrics, resident memory.

Started by the run, one endless task each, cancelled at its end. A probe that fails once is a gap, not an error.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from loadtest.robots.journal import Journal, Scrape, Timed

HEALTH_EVERY_S = 0.1
LAG_EVERY_S = 0.02
SCRAPE_EVERY_S = 1.0


async def watch_health(client: httpx.AsyncClient, journal: Journal) -> None:
    """Round trips of the cheapest request: what the network, both event loops and the processor's queue add to any."""
    while True:
        began = time.monotonic()
        with contextlib.suppress(httpx.HTTPError):
            await client.get("/healthz")
            journal.health.append(Timed(began, time.monotonic() - began))
        await asyncio.sleep(max(began + HEALTH_EVERY_S - time.monotonic(), 0.0))


async def watch_lag(journal: Journal) -> None:
    """How late this process's event loop is: what a robot's times have in them that is not the service's."""
    while True:
        due = time.monotonic() + LAG_EVERY_S
        await asyncio.sleep(LAG_EVERY_S)
        journal.lags.append(Timed(due, time.monotonic() - due))


async def watch_metrics(client: httpx.AsyncClient, journal: Journal) -> None:
    while True:
        with contextlib.suppress(httpx.HTTPError):
            response = await client.get("/metrics")
            if response.is_success:
                journal.scrapes.append(scrape(response.text, time.monotonic()))
        await asyncio.sleep(SCRAPE_EVERY_S)


async def watch_memory(pid: int, journal: Journal) -> None:
    """Resident bytes of a process and all below it."""
    service = psutil.Process(pid)
    while True:
        found = await asyncio.to_thread(resident, service)
        if found:
            journal.memory.append(Timed(time.monotonic(), found))
        await asyncio.sleep(SCRAPE_EVERY_S)


def resident(service: psutil.Process) -> float:
    """Bytes; 0 when it is gone. Memory that processes share counts once for each of them."""
    return float(sum(_sizes(service)))


def _sizes(service: psutil.Process) -> Iterator[int]:
    with contextlib.suppress(psutil.Error):
        for process in (service, *service.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                yield process.memory_info().rss


def scrape(text: str, at: float) -> Scrape:
    """What is looked at of a page of /metrics."""
    gauges: dict[str, float] = {}
    by_verb: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if "verb" in sample.labels and "le" not in sample.labels:
                by_verb.setdefault(sample.name, {})[sample.labels["verb"]] = sample.value
            elif not sample.labels:
                gauges[sample.name] = sample.value
    return Scrape(
        at,
        gauges.get("wavserve_queue_depth", 0.0),
        gauges.get("wavserve_plans_in_flight", 0.0),
        by_verb.get("wavserve_call_groups_count", {}),
        by_verb.get("wavserve_call_groups_sum", {}),
        by_verb.get("wavserve_call_rows_sum", {}),
    )
