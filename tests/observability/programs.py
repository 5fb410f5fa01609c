"""Debian's programs that the tests run, and a real Prometheus."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import yaml

from tests.observability.queries import RULES
from wavserve.system.processes import free_ports


def program(name: str) -> str:
    found = shutil.which(name)
    assert found is not None, f"{name}: not on the PATH; tests/system_packages.txt lists the packages to install"
    return found


@contextlib.contextmanager
def prometheus(
    folder: Path, targets: dict[str, tuple[str, str]], rules: Path = RULES, alertmanager: str = ""
) -> Iterator[httpx.Client]:
    """A Prometheus that scrapes every second. `targets`: job -> address and path. `alertmanager`: whom it tells."""
    jobs = [
        {"job_name": job, "metrics_path": path, "static_configs": [{"targets": [address]}]}
        for job, (address, path) in targets.items()
    ]
    times = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    told = [{"static_configs": [{"targets": [alertmanager]}]}] if alertmanager else []
    parts = {"rule_files": [str(rules)], "scrape_configs": jobs, "alerting": {"alertmanagers": told}}
    config = folder / "prometheus.yml"
    config.write_text(yaml.safe_dump({"global": times, **parts}))
    [port] = free_ports(1)
    flags = [
        f"--config.file={config}",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
        "--rules.alert.resend-delay=1s",  # the first alerts come before it has found Alertmanager
    ]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen([program("prometheus"), *flags], stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            yield client
    finally:
        process.terminate()
        process.wait()
