"""The peers of a gateway in the operations benchmark, each in a process of its own.

`collect PORT` takes traces and drops them, `scrape URL` reads metrics once a second as Prometheus does, `watch URL`
reads the events of the live page. Each prints `ready` when it has begun, and runs until it is killed.
"""

from __future__ import annotations

import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

EVERY_S = 1.0
OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"


class _Collector(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def collect(port: str) -> None:
    with ThreadingHTTPServer(("127.0.0.1", int(port)), _Collector) as server:
        _ready()
        server.serve_forever()


def scrape(url: str) -> None:
    with httpx.Client(timeout=60, trust_env=False, headers={"accept": OPENMETRICS}) as client:
        client.get(url).raise_for_status()
        _ready()
        while True:
            time.sleep(EVERY_S)
            client.get(url).raise_for_status()


def watch(url: str) -> None:
    """Raises RuntimeError when the events end."""
    with httpx.Client(timeout=60, trust_env=False) as client, client.stream("GET", url) as answer:
        answer.raise_for_status()
        for number, line in enumerate(answer.iter_lines()):
            if number == 0:
                assert line, "an event stream begins with a line"
                _ready()
    raise RuntimeError(f"{url}: the events ended")


def _ready() -> None:
    print("ready", flush=True)


PEERS = {"collect": collect, "scrape": scrape, "watch": watch}

if __name__ == "__main__":
    PEERS[sys.argv[1]](sys.argv[2])
