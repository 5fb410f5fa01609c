"""A collector of traces: an OTLP/HTTP receiver on a free loopback port, which keeps the spans that it gets.

It reads protobuf, as Python's exporter sends it, and JSON, as Triton does.
"""

from __future__ import annotations

import gzip
import json
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

WAIT_S = 30.0


@dataclass(frozen=True)
class Seen:
    """A span as it arrived."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]
    links: list[str]
    """span ids"""
    failed: bool


@dataclass
class Collector:
    """`port` 0: any free port. It takes spans while it is `serving`."""

    port: int = 0
    status: int = 200
    spans: list[Seen] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    _lock: Lock = field(default_factory=Lock)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def take(self, body: bytes, is_json: bool) -> None:
        tree = json.loads(body) if is_json else _from_protobuf(body)
        with self._lock:
            self.bodies.append(body)
            self.spans += [span for each in tree.get("resourceSpans", []) for span in _spans(each)]

    def until(self, enough: Callable[[list[Seen]], object], wait_s: float = WAIT_S) -> list[Seen]:
        """The spans, once they are enough. Fails when they are not within `wait_s`."""
        until = time.monotonic() + wait_s
        while True:
            with self._lock:
                spans = list(self.spans)
            if enough(spans):
                return spans
            assert time.monotonic() < until, f"not enough spans: {sorted(span.name for span in spans)}"
            time.sleep(0.05)


@contextmanager
def serving(collector: Collector) -> Iterator[Collector]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            body = gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body
            if collector.status == 200:
                assert self.path == "/v1/traces"
                collector.take(body, "json" in self.headers["content-type"])
            self.send_response(collector.status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", collector.port), Handler)
    collector.port = server.server_address[1]
    thread = Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _from_protobuf(body: bytes) -> dict[str, Any]:
    tree: dict[str, Any] = MessageToDict(ExportTraceServiceRequest.FromString(body))
    return tree


def _spans(resource: dict[str, Any]) -> Iterator[Seen]:
    service = _attributes(resource.get("resource", {}).get("attributes", [])).get("service.name", "")
    for scope in resource.get("scopeSpans", []):
        for span in scope.get("spans", []):
            yield Seen(
                service=service,
                name=span["name"],
                trace_id=_hex(span["traceId"]),
                span_id=_hex(span["spanId"]),
                parent_id=_hex(span.get("parentSpanId", "")),
                start_ns=int(span["startTimeUnixNano"]),
                end_ns=int(span["endTimeUnixNano"]),
                attributes=_attributes(span.get("attributes", [])),
                links=[_hex(link["spanId"]) for link in span.get("links", [])],
                failed=span.get("status", {}).get("code") in ("STATUS_CODE_ERROR", 2),
            )


def _hex(text: str) -> str:
    """Ids: hexadecimal in OTLP's JSON, base64 where protobuf's own JSON has them."""
    return text.lower() if len(text) in (0, 16, 32) else b64decode(text).hex()


def _attributes(items: list[dict[str, Any]]) -> dict[str, Any]:
    return {item["key"]: next(iter(item["value"].values()), None) for item in items}
