"""The text of the metrics, made on a thread, one at a time: the event loop goes on meanwhile.

Whoever asks while a text is made gets the next one, together with all others who wait, so readers cost no more than one
text after another. Knows no route.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.openmetrics import exposition as openmetrics

from wavserve.system.telemetry import Metrics

OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
PLAIN: Final = CONTENT_TYPE_PLAIN_0_0_4

Encode = Callable[[CollectorRegistry], bytes]
_FORMATS: Mapping[str, Encode] = {
    PLAIN: generate_latest,
    OPENMETRICS: partial(openmetrics.generate_latest, version="1.0.0"),
}


class Exposition:
    """The metrics of one server as text, for readers on one event loop."""

    def __init__(self, metrics: Metrics, formats: Mapping[str, Encode] = _FORMATS) -> None:
        self._metrics = metrics
        self._formats = formats
        self._waiting: dict[str, asyncio.Task[bytes]] = {}
        self._one_at_a_time = asyncio.Lock()

    async def text(self, media_type: str) -> bytes:
        """The metrics, not older than this call, as `PLAIN` or `OPENMETRICS`. Raises what a reading raises."""
        if media_type not in self._waiting:
            self._waiting[media_type] = asyncio.create_task(self._made(media_type))
        return await asyncio.shield(self._waiting[media_type])  # others wait for it too

    async def _made(self, media_type: str) -> bytes:
        async with self._one_at_a_time:
            del self._waiting[media_type]  # values change from here on
            self._metrics.read_watched()
            return await asyncio.to_thread(self._formats[media_type], self._metrics.registry)


def media_type_for(accept: str) -> str:
    """The media type for a reader with this `Accept` header: OpenMetrics where it names ours or no version."""
    return OPENMETRICS if any(_is_openmetrics(each) for each in accept.lower().split(",")) else PLAIN


def _is_openmetrics(accepted: str) -> bool:
    name, *parameters = (part.strip() for part in accepted.split(";"))
    versions = [each for each in parameters if each.startswith("version=")]
    return name == "application/openmetrics-text" and versions in ([], ["version=1.0.0"])
