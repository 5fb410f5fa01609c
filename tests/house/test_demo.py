"""`make demo` as a person runs it: it starts a service, makes six plans in one session, writes a page and stops."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
NUM_FRAMES = 6


def test_the_demo_writes_the_page(tmp_path: Path) -> None:
    arguments = [f"--out={tmp_path}", "--preset=tiny", f"--set=bundle.root={tmp_path / 'bundles'}"]
    ran = subprocess.run(
        [sys.executable, "-m", "examples.demo", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=600,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert len(re.findall(r"^control step \d+: answered", ran.stdout, re.MULTILINE)) == NUM_FRAMES
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert page.count("<h2>") == NUM_FRAMES
    assert page.count("Imagined future frames") == 1
    assert "Never run them on a robot" in page
    assert "stopping: 0 plans under way" in (tmp_path / "server.log").read_text(encoding="utf-8")
