"""Probes of a run: round trips to /healthz, delays of this process, /metrics, and resident memory.

Each probe is an endless task that the run cancels. A reading that fails is left out of the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

from loadtest.robots.event_log import EventLog, Reading, Scrape

HEALTH_EVERY_S = 0.1
LAG_EVERY_S = 0.02
SCRAPE_EVERY_S = 1.0


async def watch_health(client: httpx.AsyncClient, log: EventLog) -> None:
    """Round trips of the cheapest request: the time that network, event loops and a busy processor add to each one."""
    while True:
        began = time.monotonic()
        with contextlib.suppress(httpx.HTTPError):
            await client.get("/healthz")
            log.health.append(Reading(began, time.monotonic() - began))
        await asyncio.sleep(max(began + HEALTH_EVERY_S - time.monotonic(), 0.0))


async def watch_lag(log: EventLog) -> None:
    """Delays of this process's event loop: the part of a measured time that the service does not cause."""
    while True:
        due = time.monotonic() + LAG_EVERY_S
        await asyncio.sleep(LAG_EVERY_S)
        log.lags.append(Reading(due, time.monotonic() - due))


async def watch_metrics(client: httpx.AsyncClient, log: EventLog) -> None:
    while True:
        with contextlib.suppress(httpx.HTTPError):
            response = await client.get("/metrics")
            if response.is_success:
                log.scrapes.append(scrape(response.text, time.monotonic()))
        await asyncio.sleep(SCRAPE_EVERY_S)


async def watch_memory(pid: int, log: EventLog) -> None:
    """Resident bytes of a process and its descendants."""
    service = psutil.Process(pid)
    while True:
        size = await asyncio.to_thread(resident, service)
        if size:
            log.memory.append(Reading(time.monotonic(), size))
        await asyncio.sleep(SCRAPE_EVERY_S)


def resident(service: psutil.Process) -> float:
    """Resident bytes; 0 after the process exit. Shared memory counts once for each process that shares it."""
    return float(sum(_sizes(service)))


def _sizes(service: psutil.Process) -> Iterator[int]:
    with contextlib.suppress(psutil.Error):
        for process in (service, *service.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                yield process.memory_info().rss


def scrape(text: str, at: float) -> Scrape:
    """The metrics that the load test uses, from the text of /metrics."""
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
