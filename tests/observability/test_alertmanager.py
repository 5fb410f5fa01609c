"""A real Alertmanager: it accepts our routes, gets our alerts from a real Prometheus, and tells whom it should."""

from __future__ import annotations

import contextlib
import http.server
import json
import queue
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.observability.programs import program, prometheus
from tests.observability.queries import ROOT, RULES, rules
from wavserve.system.processes import free_ports

pytestmark = pytest.mark.system

ROUTES = ROOT / "deploy/prometheus/alertmanager.yml"
TOLD_WITHIN_S = 60.0


def amtool(*arguments: str) -> str:
    done = subprocess.run([program("amtool"), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_amtool_accepts_the_routes() -> None:
    amtool("check-config", str(ROUTES))


@pytest.mark.parametrize("alert", [rule for rule in rules() if "alert" in rule], ids=lambda rule: rule["alert"])
def test_each_alert_goes_to_the_receiver_of_its_severity(alert: dict[str, Any]) -> None:
    severity = alert["labels"]["severity"]
    labels = (f"alertname={alert['alert']}", f"severity={severity}")
    assert amtool("config", "routes", "test", f"--config.file={ROUTES}", *labels).split() == [severity]


def test_an_alert_without_a_severity_goes_to_nobody() -> None:
    assert amtool("config", "routes", "test", f"--config.file={ROUTES}", "alertname=Other").split() == ["nobody"]


class Webhook(http.server.ThreadingHTTPServer):
    """Takes what Alertmanager sends."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Taker)
        self.told: queue.Queue[dict[str, Any]] = queue.Queue()


class _Taker(http.server.BaseHTTPRequestHandler):
    server: Webhook

    def do_POST(self) -> None:
        self.server.told.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def webhook() -> Iterator[Webhook]:
    with Webhook() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@contextlib.contextmanager
def alertmanager(folder: Path, receiver: Webhook) -> Iterator[str]:
    """The address of an Alertmanager with our routes. It tells the webhook of pages, and does not wait for more."""
    routes = yaml.safe_load(ROUTES.read_text())
    [page] = [each for each in routes["receivers"] if each["name"] == "page"]
    page["webhook_configs"] = [{"url": f"http://127.0.0.1:{receiver.server_port}/"}]
    [route] = [each for each in routes["route"]["routes"] if each["receiver"] == "page"]
    route["group_wait"] = "0s"
    config = folder / "alertmanager.yml"
    config.write_text(yaml.safe_dump(routes))
    [port] = free_ports(1)
    flags = [
        f"--config.file={config}",
        f"--storage.path={folder}/alerts",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    ]
    with (folder / "alertmanager.log").open("wb") as log:
        process = subprocess.Popen([program("prometheus-alertmanager"), *flags], stdout=log, stderr=log)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def test_a_person_is_told_that_no_gateway_is_scraped(tmp_path: Path) -> None:
    """Prometheus has our rules, but waits for nothing, and finds no gateway."""
    impatient = yaml.safe_load(RULES.read_text())
    for group in impatient["groups"]:
        for rule in group["rules"]:
            rule.pop("for", None)
    rules_file = tmp_path / "rules.yml"
    rules_file.write_text(yaml.safe_dump(impatient))
    [nothing] = free_ports(1)
    with webhook() as receiver, alertmanager(tmp_path, receiver) as address:
        targets = {"gateway": (f"127.0.0.1:{nothing}", "/metrics")}
        with prometheus(tmp_path, targets, rules_file, address):
            told = receiver.told.get(timeout=TOLD_WITHIN_S)
    assert told["receiver"] == "page"
    [alert] = told["alerts"]
    assert alert["status"] == "firing"
    assert alert["labels"] == {"alertname": "WavserveNoGateway", "severity": "page"}
    assert alert["annotations"]["runbook"] == "docs/runbook.md#wavservenogateway"
