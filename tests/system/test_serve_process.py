"""How long a service that runs as a child may take to end."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from wavserve.system.serve_process import END_WITHIN_S, SERVE, Child, end_within_s


@pytest.mark.parametrize(
    ("flags", "drain_s"),
    [
        ([], 0.0),
        (["--http-port=8000", "--set", "limits.drain_s=300"], 300.0),
        (["--set=limits.drain_s=0.5"], 0.5),
        (["--set=limits.drain_s=300", "--set", "limits.drain_s=100"], 100.0),
    ],
)
def test_a_service_may_drain_before_it_is_killed(flags: list[str], drain_s: float) -> None:
    assert end_within_s([*SERVE, *flags]) == END_WITHIN_S + drain_s


class Patient:
    """A process that ends when it is asked to, and notes how long it may take."""

    args = (sys.executable, "--set=limits.drain_s=300")
    waited_s = 0.0

    def terminate(self) -> None: ...

    def wait(self, timeout: float) -> int:
        self.waited_s = timeout
        return 0


def test_a_stop_waits_for_plans_under_way() -> None:
    process = Patient()
    assert Child(process, "", "", Path()).stop() == 0  # type: ignore[arg-type]
    assert process.waited_s > 300
